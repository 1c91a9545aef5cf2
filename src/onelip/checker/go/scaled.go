package main

import "math/big"

// scaled is c g(inner * x) with c from one tensor above 0 and from another one elsewhere.
type scaled struct {
	of             *curve
	inner          grid
	innerAt, outer *broadcast
	above, below   grid
	innerMost      upper // the largest absolute value of inner
	outerMost      upper // and of above and below
	constant       upper
}

func (b *bundle) readScaled(v any, input []int, what string) *activation {
	f := fields(v, what, "kind", "of", "inner", "above", "below")
	c := curves[text(f["of"], what)]
	demand(c != nil, "%s: an unknown activation", what)
	inner, up, down := b.floats(f["inner"], what), b.floats(f["above"], what), b.floats(f["below"], what)
	demand(tuple(up.shape) == tuple(down.shape), "%s: numbers above and below of another shape", what)
	s := &scaled{of: c, innerAt: onto(inner, input, what), outer: onto(up, input, what)}
	for i := 0; c.lifts && i < up.length(); i++ {
		demand(up.double(i) == down.double(i), "%s: a function that would jump at 0: above and below have another number", what)
	}
	s.inner, s.above, s.below = inner.onGrid(), up.onGrid(), down.onGrid()
	least, most := up.extremes()
	least2, most2 := down.extremes()
	low, high := products([]*big.Rat{smaller(least, least2), larger(most, most2)}, ends(inner.extremes()), []*big.Rat{c.low, c.high})
	constant := larger(high, new(big.Rat).Neg(low))
	s.constant = above(constant)
	s.innerMost, s.outerMost = largestOf(ends(inner.extremes())), largestOf([]*big.Rat{least, least2, most, most2})
	return &activation{outputs: input, square: multiply(constant, constant), low: low, high: high, constant: s.constant, apply: s.apply}
}

func ends(low, high *big.Rat) []*big.Rat { return []*big.Rat{low, high} }

// products is the least and the largest product of a number of each list.
func products(a, b, c []*big.Rat) (low, high *big.Rat) {
	for _, x := range a {
		for _, y := range b {
			for _, z := range c {
				p := multiply(x, multiply(y, z))
				if low == nil {
					low, high = p, p
				}
				low, high = smaller(low, p), larger(high, p)
			}
		}
	}
	return low, high
}

// largestOf is the largest absolute value.
func largestOf(a []*big.Rat) upper {
	most := new(big.Rat)
	for _, x := range a {
		most = larger(most, new(big.Rat).Abs(x))
	}
	return above(most)
}

// apply takes a sign from a product that was rounded. Where that is wrong, as anywhere, the result is as much off as its
// constant says: it is continuous, as g(0) is 0 or both sides have the same factor.
func (s *scaled) apply(x grid) grid {
	z := scaledBy(x, s.inner, s.innerAt.places())
	z.off = z.off.plus(s.innerMost.times(x.off))
	y := s.of.applied(z)
	up, down := grid{make([]int64, len(y.m)), y.e, nothing()}, grid{make([]int64, len(y.m)), y.e, nothing()}
	for i, m := range y.m {
		if z.m[i] > 0 {
			up.m[i] = m
		} else {
			down.m[i] = m
		}
	}
	r := together(scaledBy(up, s.above, s.outer.places()), scaledBy(down, s.below, s.outer.places()))
	r.off = r.off.plus(s.outerMost.times(y.off))
	return r
}
