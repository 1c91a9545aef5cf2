package main

import (
	"fmt"
	"math/big"
)

// readSamples shows the radii: for each, what the network gives is computed with all that rounding does.
func (b *bundle) readSamples(v any) {
	if v == nil {
		return
	}
	const what = "the samples"
	f := fields(v, what, "inputs", "predictions", "radii", "head")
	t := b.floats(f["inputs"], what)
	demand(len(t.shape) == len(b.input)+1 && t.length() > 0 && tuple(t.shape[1:]) == tuple(b.input), "%s have another shape than the input", what)
	n, outputs := t.shape[0], entries(b.output, what)
	demand(outputs <= widestLayer>>12, "%s: too many outputs", what)
	predictions, radii := list(f["predictions"], what), list(f["radii"], what)
	demand(len(predictions) == n && len(radii) == n, "%s: another number of predictions or radii", what)
	chosen, radius := make([]int, n), make([]*big.Rat, n)
	for i := range chosen {
		chosen[i], radius[i] = integer(predictions[i], "a prediction", 0, outputs-1), claim(radii[i], "a radius")
	}
	shows := b.readHead(f["head"], outputs, chosen, radius)
	each := len(t.raw) / n
	parallel(n, func(i int) {
		b.to.begins(fmt.Sprintf("sample %d", i), i, n)
		if radius[i].Sign() == 0 {
			return
		}
		one := tensor{t.kind, b.input, t.raw[i*each : (i+1)*each]}
		demand(shows(one.onGrid(), chosen[i], radius[i]), "sample %d: its radius is not shown", i)
	})
	b.radii, b.predicted = radius, chosen
	least, most := radius[0], radius[0]
	for _, r := range radius {
		least, most = smaller(least, r), larger(most, r)
	}
	low, _ := least.Float64()
	high, _ := most.Float64()
	b.say("%d samples, radii from %.6g to %.6g", n, low, high)
}

// head says whether no other output is as large as the chosen one, within a distance of a sample.
type head func(x grid, own int, radius *big.Rat) bool

func (b *bundle) readHead(v any, outputs int, chosen []int, radius []*big.Rat) head {
	const what = "the head"
	if _, ok := v.(record); ok {
		demand(b.level == nil, "%s: curvature, which level float does not know", what)
		return b.readCurvature(v, outputs, asked(outputs, chosen, radius)).shows
	}
	switch text(v, what) {
	case "network":
		return b.straight(func(i, j int) *big.Rat { return multiply(rootOfWhole(2).fraction(), b.product) })
	case "pairs":
		ok := len(b.last) > 0
		var last *dense
		if ok {
			last, ok = b.last[len(b.last)-1].(*dense)
		}
		demand(ok, "%s: the network does not end in a matrix", what)
		return b.straight(func(i, j int) *big.Rat { return multiply(b.beforeLast, last.distance(i, j)) })
	}
	refuse("%s is unknown", what)
	return nil
}

// asked is the pairs of a chosen output and another one, each once.
func asked(outputs int, chosen []int, radius []*big.Rat) [][2]int {
	seen, pairs := make([]bool, outputs), [][2]int{}
	for k, i := range chosen {
		if radius[k].Sign() == 0 || seen[i] {
			continue
		}
		seen[i] = true
		for j := 0; j < outputs; j++ {
			if j != i {
				pairs = append(pairs, [2]int{i, j})
			}
		}
	}
	return pairs
}

// straight is a head for constants of the differences of two outputs.
func (b *bundle) straight(constant func(i, j int) *big.Rat) head {
	if b.level != nil {
		return b.lasting(constant)
	}
	return func(x grid, own int, radius *big.Rat) bool {
		y := b.apply(x)
		slack := y.off.times(rootOfWhole(2)).fraction()
		for j := range y.m {
			if j == own {
				continue
			}
			margin := times2(whole(y.m[own]-y.m[j]), y.e)
			margin.Sub(margin, slack)
			if multiply(radius, constant(own, j)).Cmp(margin) >= 0 {
				return false
			}
		}
		return true
	}
}

// distance is an upper bound of the distance between two rows.
func (d *dense) distance(i, j int) *big.Rat {
	p, q := d.a.m[i*d.a.cols:(i+1)*d.a.cols], d.a.m[j*d.a.cols:(j+1)*d.a.cols]
	difference := make([]int64, len(p))
	for k := range p {
		difference[k] = p[k] - q[k]
	}
	g := refitted(difference, d.a.e)
	return lengthOf(g.m, g.e).plus(g.off).plus(d.off.times(rootOfWhole(2))).fraction()
}
