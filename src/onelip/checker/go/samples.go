package main

import "math/big"

// readSamples shows the radii: for each, what the network gives is computed with all that rounding does.
func (b *bundle) readSamples(v any) {
	if v == nil {
		return
	}
	const what = "the samples"
	f := fields(v, what, "inputs", "predictions", "radii", "head")
	t := b.tensor(f["inputs"], what)
	demand(len(t.shape) == len(b.input)+1 && t.length() > 0 && tuple(t.shape[1:]) == tuple(b.input), "%s have another shape than the input", what)
	n, outputs := t.shape[0], entries(b.output, what)
	demand(outputs <= widestLayer>>12, "%s: too many outputs", what)
	predictions, radii := list(f["predictions"], what), list(f["radii"], what)
	demand(len(predictions) == n && len(radii) == n, "%s: another number of predictions or radii", what)
	var head *dense
	switch text(f["head"], what) {
	case "network":
	case "pairs":
		ok := len(b.last) > 0
		if ok {
			head, ok = b.last[len(b.last)-1].(*dense)
		}
		demand(ok, "%s: the network does not end in a matrix", what)
	default:
		refuse("%s: an unknown head", what)
	}
	chosen, radius := make([]int, n), make([]*big.Rat, n)
	for i := range chosen {
		chosen[i], radius[i] = integer(predictions[i], "a prediction", 0, outputs-1), claim(radii[i], "a radius")
	}
	each := len(t.raw) / n
	parallel(n, func(i int) {
		if radius[i].Sign() == 0 {
			return
		}
		one := tensor{t.kind, b.input, t.raw[i*each : (i+1)*each]}
		y := b.apply(one.onGrid())
		spend(outputs, 1<<8)
		slack := y.off.times(rootOfWhole(2)).fraction()
		for j := 0; j < outputs; j++ {
			if j == chosen[i] {
				continue
			}
			margin := times2(whole(y.m[chosen[i]]-y.m[j]), y.e)
			margin.Sub(margin, slack)
			reach := multiply(radius[i], b.product)
			reach = multiply(reach, reach)
			reach.Add(reach, reach)
			if head != nil {
				spend(8, head.a.cols)
				reach = multiply(radius[i], multiply(b.beforeLast, head.distance(chosen[i], j)))
				reach = multiply(reach, reach)
			}
			demand(margin.Sign() > 0 && reach.Cmp(multiply(margin, margin)) < 0, "sample %d: its radius is not shown", i)
		}
	})
	least, most := radius[0], radius[0]
	for _, r := range radius {
		least, most = smaller(least, r), larger(most, r)
	}
	low, _ := least.Float64()
	high, _ := most.Float64()
	b.say("%d samples, radii from %.6g to %.6g", n, low, high)
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
