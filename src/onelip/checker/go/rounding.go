package main

import "math"

// execution is where all executions at inputs within a radius of a sample are, as docs/proof-format.md has it.
type execution struct {
	sample grid  // the exact values at the sample
	moved  upper // how far the exact values at an input are from those
	wrong  upper // how far an execution's values are from the exact ones at its input
}

// within is how far an execution is from the numbers of the grid.
func (x execution) within() upper { return x.moved.plus(x.wrong).plus(x.sample.off) }

// longest is at least an execution's length.
func (x execution) longest() upper { return lengthOf(x.sample.m, x.sample.e).plus(x.within()) }

// fresh takes an execution's numbers for exact ones: what is wrong after a part of it is what the part itself adds.
func (x execution) fresh() execution {
	return execution{grid{x.sample.m, x.sample.e, nothing()}, x.within(), nothing()}
}

// after is what a part gives that is exact in an execution, too, by its values at the sample and its constant.
func (x execution) after(sample grid, constant upper) execution {
	return execution{sample, constant.times(x.moved), constant.times(x.wrong)}
}

// more is off by so much more.
func (x execution) more(wrong upper) execution { x.wrong = x.wrong.plus(wrong); return x }

// holds demands that a length is far from overflow.
func (f *format) holds(length upper) {
	limit := upper{upwards().SetInt64(1)}.scaled(f.limit)
	demand(length.f.Cmp(limit.f) < 0, "numbers so large that they may overflow")
}

// lost is what flushing does to n numbers.
func (f *format) lost(n int) upper { return rootOfWhole(n).scaled(f.tiny) }

// share is n u / (1 - k u).
func (f *format) share(n, k int) upper {
	demand(k <= 1<<(f.digits-1), "sums of too many numbers for their format")
	return number(n).over(1<<f.digits - k)
}

// roundings is what k operations in a row do to numbers of a length, by k u / (1 - k u). In a longer format they may be done
// first: that is u + 2^-52 instead of u for float32, and less than the 1 / (1 - u) that is too much here.
func (f *format) roundings(k int, length upper) upper { return length.times(f.share(k, k+1)) }

func number(n int) upper { return upper{upwards().SetInt64(int64(n))} }

// read may flush what it reads.
func (l *level) read(x execution) execution { return x.more(l.numbers.lost(len(x.sample.m))) }

// moves is a part that only moves numbers.
func (l *level) moves(x execution) execution {
	l.numbers.holds(x.longest())
	return x.more(l.numbers.lost(len(x.sample.m)))
}

// rounds is one operation, whose exact results x has.
func (l *level) rounds(x execution) execution {
	l.numbers.holds(x.longest())
	return x.more(l.numbers.roundings(1, x.longest())).more(l.numbers.lost(len(x.sample.m)))
}

// cost is what the rounding of sums of products adds: gain times how far an execution is from the grid, plus tiny, plus
// share times |s + n m| at the grid.
type cost struct{ share, gain, tiny upper }

// cost is for numbers of so many inputs that become so many sums.
//
// In tiny are 2 n + 1 operations, which the additions after them stretch by less than 1 / (1 - (n + 1) u), and the inputs,
// which each row may flush or not.
func (l *level) cost(s *sums, inputs, outputs int) cost {
	n := s.additions()
	g := l.sums.share(1, n+1)
	half := s.total.plus(lesser(s.total, s.norm)).scaled(-1)
	tiny := l.sums.lost(outputs).times(number(2 * (n + 1))).times(g.scaled(l.sums.digits))
	return cost{g, g.times(s.total.plus(half.times(number(n)))), tiny.plus(s.total.times(l.numbers.lost(inputs)))}
}

// stored is what it adds to round sums of a length to the numbers' format, where that is another one.
func (l *level) stored(length upper, outputs int) upper {
	if l.sums == l.numbers {
		return nothing()
	}
	return l.numbers.roundings(1, length).plus(l.numbers.lost(outputs).scaled(1))
}

// summed is an execution after sums of products.
func (l *level) summed(s *sums, x execution) execution {
	values, sizes := s.at(x.sample)
	c := l.cost(s, len(x.sample.m), len(values.m))
	far := x.within()
	added := c.share.times(heights(values, sizes, s.additions())).plus(c.gain.times(far)).plus(c.tiny)
	l.numbers.holds(lengthOf(sizes.m, sizes.e).plus(sizes.off).plus(s.total.times(far)).plus(added))
	length := lengthOf(values.m, values.e).plus(values.off).plus(s.norm.times(far)).plus(added)
	values.off = values.off.plus(s.norm.times(x.sample.off))
	return l.holding(x.after(values, s.norm).more(added).more(l.stored(length, len(values.m))))
}

func (l *level) holding(x execution) execution { l.numbers.holds(x.longest()); return x }

// at is W x + b and |W| |x| + |b| at the numbers of a grid, whatever those are off by.
func (s *sums) at(x grid) (values, sizes grid) {
	return s.apply(grid{x.m, x.e, nothing()}), s.absolute(grid{absolute(x.m), x.e, nothing()})
}

// heights is |s + n m| for sizes s and m = (s + |values|) / 2.
func heights(values, sizes grid, n int) upper {
	up, half := 1+float64(n)/2, float64(n)/2
	total := 0.0
	for i, s := range sizes.m {
		h := up*float64(s) + half*math.Ldexp(float64(magnitude(values.m[i])), values.e-sizes.e)
		total += h * h
	}
	// At most 2^24 numbers >= 0 of few roundings each: off by a factor of less than 1 + 2^-25.
	h := upper{upwards().SetFloat64(math.Sqrt(total) * (1 + 0x1p-20))}.scaled(sizes.e)
	return h.plus(number(n + 2).scaled(-1).times(sizes.off)).plus(number(n).scaled(-1).times(values.off))
}
