package main

import (
	"fmt"
	"math/big"
	"sync"
)

// linear is a map whose claimed norm has been shown; apply adds its bias.
type linear interface {
	outputs() []int
	claimed() *big.Rat
	apply(x grid) grid
	executed(*level, execution) execution
}

// proved is what all maps have.
type proved struct {
	norm  *big.Rat
	shape []int
}

func (p proved) outputs() []int    { return p.shape }
func (p proved) claimed() *big.Rat { return p.norm }

// carried is what an error of the input becomes, and what else has been counted.
func (p proved) carried(x grid, more ...upper) upper {
	off := above(p.norm).times(x.off)
	for _, m := range more {
		off = off.plus(m)
	}
	return off
}

// readMap reads a map and shows its norm; the second result says how.
func (b *bundle) readMap(v any, input []int, what string) (linear, string) {
	r, ok := v.(record)
	demand(ok, "%s is not an object", what)
	switch kind, _ := r["map"].(string); kind {
	case "dense":
		return b.readDense(v, input, what)
	case "convolution":
		c, how := b.readConvolution(v, input, what)
		return c, how
	case "scale":
		return b.readScale(v, input, what)
	case "take":
		return b.readTake(v, input, what)
	case "adjoint":
		return b.readAdjoint(v, input, what)
	case "exponential":
		return b.readExponential(v, input, what)
	case "fourier":
		return b.readFourier(v, input, what)
	}
	refuse("%s is of an unknown kind", what)
	return nil, ""
}

// dense is a matrix, and a bias or nil.
type dense struct {
	proved
	weight *tensor
	a      matrix
	off    upper
	bias   *tensor
	rounded
	once   sync.Once
	lifted raised
	sums   []wide
}

func (b *bundle) readDense(v any, input []int, what string) (*dense, string) {
	f := fields(v, what, "map", "norm", "weight", "bias")
	t := b.floats(f["weight"], what)
	demand(len(t.shape) == 2 && t.length() > 0, "%s: the weight is not a matrix", what)
	demand(t.shape[1] == entries(input, what), "%s: the matrix does not fit its input", what)
	keep(t.length(), 16)
	w := t.onGrid()
	d := &dense{weight: t, a: matrix{t.shape[0], t.shape[1], w.m, w.e}, off: w.off, bias: b.bias(f["bias"], t.shape[0], what)}
	d.proved = proved{claim(f["norm"], what), []int{t.shape[0]}}
	demand(d.a.below(d.norm, d.off), "%s: its norm is not shown to be at most what is claimed", what)
	if b.level != nil {
		d.rounded = d.counted()
	}
	return d, "matrix"
}

func (d *dense) apply(x grid) grid {
	d.once.Do(func() { d.lifted, d.sums = raisedRows(d.a.m, d.a.cols) })
	spend(d.a.rows, d.a.cols)
	v, total := raisedRows(x.m, len(x.m))
	sums := make([]wide, d.a.rows)
	for i := range sums {
		sums[i] = lowered(dot(d.lifted[i*d.a.cols:(i+1)*d.a.cols], v), d.a.cols, d.sums[i], total[0])
	}
	y := settled(sums, d.a.e+x.e)
	y.off = d.carried(x, y.off, d.off.times(lengthOf(x.m, x.e)))
	return biased(y, d.bias)
}

// transposed is the adjoint without the bias.
func (d *dense) transposed(x grid) grid {
	spend(d.a.rows, d.a.cols)
	sums := make([]wide, d.a.cols)
	for i, y := range x.m {
		for j, w := range d.a.m[i*d.a.cols : (i+1)*d.a.cols] {
			sums[j] = sums[j].plus(times(w, y))
		}
	}
	y := settled(sums, d.a.e+x.e)
	y.off = d.carried(x, y.off, d.off.times(lengthOf(x.m, x.e)))
	return y
}

// raisedRows is rows of so many columns as dot wants them, and their sums.
func raisedRows(m []int64, cols int) (raised, []wide) {
	r, sums := make(raised, len(m)), make([]wide, len(m)/cols)
	for i, x := range m {
		r[i] = raise(x)
	}
	for i := range sums {
		sums[i] = sum(m[i*cols : (i+1)*cols])
	}
	return r, sums
}

// bias is null or a tensor of one number for each channel.
func (b *bundle) bias(v any, channels int, what string) *tensor {
	if v == nil {
		return nil
	}
	t := b.floats(v, what)
	demand(len(t.shape) == 1 && t.shape[0] == channels, "%s: the bias does not fit", what)
	return t
}

// biased is x plus one number for each channel.
func biased(x grid, bias *tensor) grid {
	if bias == nil {
		return x
	}
	index := make([]int32, len(x.m))
	each := len(x.m) / bias.length()
	for i := range index {
		index[i] = int32(i / each)
	}
	return together(x, spread(bias.onGrid(), index))
}

// spread is the numbers of a at these places; what they are off by may count several times.
func spread(a grid, index []int32) grid {
	spend(8, len(index))
	s := grid{m: make([]int64, len(index)), e: a.e, off: a.off.times(rootOfWhole(len(index)))}
	for i, j := range index {
		s.m[i] = a.m[j]
	}
	return s
}

// broadcast is a tensor that stands at all places of a shape.
type broadcast struct {
	from, to []int
	once     sync.Once
	index    []int32
}

// onto says that a tensor broadcasts onto a shape.
func onto(t *tensor, shape []int, what string) *broadcast {
	ahead := len(shape) - len(t.shape)
	demand(ahead >= 0 && t.length() > 0, "%s: a tensor does not broadcast onto its input", what)
	for a, side := range t.shape {
		demand(side == 1 || side == shape[ahead+a], "%s: a tensor does not broadcast onto its input", what)
	}
	keep(t.length(), 8)
	return &broadcast{from: t.shape, to: shape}
}

// places is which entry of the tensor stands where.
func (b *broadcast) places() []int32 {
	b.once.Do(func() {
		spend(64, entries(b.to, "a shape"))
		keep(entries(b.to, "a shape"), 4)
		b.index = make([]int32, entries(b.to, "a shape"))
		ahead := len(b.to) - len(b.from)
		for i := range b.index {
			rest, step := i, 1
			for a := len(b.to) - 1; a >= ahead; a-- {
				side := b.from[a-ahead]
				if side > 1 {
					b.index[i] += int32(rest % b.to[a] * step)
				}
				rest /= b.to[a]
				step *= side
			}
		}
	})
	return b.index
}

// scale is factor * x + shift.
type scale struct {
	proved
	factor grid
	at     *broadcast
	shift  *tensor
	moved  *broadcast
}

func (b *bundle) readScale(v any, input []int, what string) (*scale, string) {
	f := fields(v, what, "map", "norm", "factor", "shift")
	t := b.floats(f["factor"], what)
	s := &scale{factor: t.onGrid(), at: onto(t, input, what)}
	s.proved = proved{claim(f["norm"], what), input}
	low, high := t.extremes()
	demand(atLeast(s.norm, high) && atLeast(s.norm, new(big.Rat).Neg(low)), "%s: a factor is larger than the norm", what)
	if f["shift"] != nil {
		s.shift = b.floats(f["shift"], what)
		s.moved = onto(s.shift, input, what)
	}
	return s, "largest factor"
}

func (s *scale) apply(x grid) grid { return s.shifted(s.product(x)) }

func (s *scale) product(x grid) grid {
	y := scaledBy(x, s.factor, s.at.places())
	y.off = s.carried(x, y.off)
	return y
}

func (s *scale) shifted(y grid) grid {
	if s.shift == nil {
		return y
	}
	return together(y, spread(s.shift.onGrid(), s.moved.places()))
}

// scaledBy is the products of numbers with factors; off is what is new.
func scaledBy(x, factor grid, index []int32) grid {
	spend(8, len(x.m))
	sums := make([]wide, len(x.m))
	for i, m := range x.m {
		sums[i] = times(m, factor.m[index[i]])
	}
	y := settled(sums, x.e+factor.e)
	y.off = y.off.plus(factor.off.times(lengthOf(x.m, x.e)))
	return y
}

// take moves numbers; a nil index leaves them where they are.
type take struct {
	proved
	index []int32
}

func (b *bundle) readTake(v any, input []int, what string) (*take, string) {
	f := fields(v, what, "map", "norm", "index", "outputs")
	t := &take{proved: proved{claim(f["norm"], what), sizes(f["outputs"], what)}}
	n, most := entries(t.shape, what), 1
	if f["index"] == nil {
		demand(n == entries(input, what), "%s: another number of entries", what)
	} else {
		list := b.tensor(f["index"], what)
		demand(!list.floating(), "%s: an index of floating-point numbers", what)
		spend(64, n+entries(input, what))
		demand(len(list.shape) == 1 && list.length() == n, "%s: the index has another length than the result", what)
		keep(n, 4)
		t.index = make([]int32, n)
		counts := make([]int, entries(input, what))
		most = 0
		for i := range t.index {
			k, _ := list.at(i)
			demand(k >= -1 && k < int64(len(counts)), "%s: an index is out of range", what)
			t.index[i] = int32(k)
			if k < 0 {
				continue
			}
			counts[k]++
			if counts[k] > most {
				most = counts[k]
			}
		}
	}
	demand(atLeast(multiply(t.norm, t.norm), whole(int64(most))), "%s: an entry is taken more often than the norm allows", what)
	return t, "repetitions"
}

func (t *take) apply(x grid) grid {
	if t.index == nil {
		return grid{x.m, x.e, t.carried(x)}
	}
	spend(8, len(t.index))
	y := grid{m: make([]int64, len(t.index)), e: x.e, off: t.carried(x)}
	for i, k := range t.index {
		if k >= 0 {
			y.m[i] = x.m[k]
		}
	}
	return y
}

// tuple is a shape as Python writes it.
func tuple(shape []int) string {
	s := ""
	for i, n := range shape {
		if i > 0 {
			s += ", "
		}
		s += fmt.Sprint(n)
	}
	if len(shape) == 1 {
		s += ","
	}
	return "(" + s + ")"
}
