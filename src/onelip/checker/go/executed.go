package main

import "math/big"

// chain is an execution after maps.
func (l *level) chain(maps []linear, x execution) execution {
	for _, m := range maps {
		x = m.executed(l, x)
	}
	return x
}

func (d *dense) executed(l *level, x execution) execution     { return l.summed(d.forward, x) }
func (v *convolved) executed(l *level, x execution) execution { return l.summed(v.forward, x) }
func (a *adjoint) executed(l *level, x execution) execution   { return l.summed(a.sums, x) }

func (t *take) executed(l *level, x execution) execution {
	return l.moves(x.after(t.apply(x.sample), above(t.norm)))
}

func (s *scale) executed(l *level, x execution) execution {
	x = l.read(x)
	y := l.rounds(x.after(s.product(x.sample), above(s.norm)))
	if s.shift == nil {
		return y
	}
	y.sample = s.shifted(y.sample)
	return l.rounds(y)
}

// executed follows u = x + (A u) (1 / i) by lengths alone.
func (s *exponential) executed(l *level, x execution) execution {
	a, n := s.of.forward, len(x.sample.m)
	c, flushed := l.cost(a, n, n), l.numbers.lost(n)
	start := x.longest()
	length, wrong := start, nothing() // of the exact u, and how far the computed one is from it
	for i := s.terms - 1; i >= 1; i-- {
		computed := length.plus(wrong)
		added := c.gain.times(computed).plus(c.tiny)
		l.numbers.holds(a.total.times(computed).plus(added))
		added = added.plus(l.stored(a.norm.times(computed).plus(added), n))
		product := a.norm.times(computed).plus(added)
		l.numbers.holds(product)
		wrong = a.norm.times(wrong).plus(added).over(i).plus(l.numbers.roundings(2, product.over(i)))
		length = start.plus(a.norm.times(length).over(i))
		wrong = wrong.plus(l.numbers.roundings(1, length.plus(wrong))).plus(flushed.scaled(2))
		l.numbers.holds(length.plus(wrong))
	}
	return l.moves(x.after(s.apply(x.sample), above(s.norm)).more(wrong))
}

// activated is an execution after an activation.
func (l *level) activated(a *activation, x execution) execution {
	if a.rounded == nil {
		return l.moves(x.after(a.apply(x.sample), a.constant))
	}
	x = l.read(x)
	products := a.rounded(x.sample)
	length := lengthOf(products.m, products.e).plus(products.off).plus(a.steepest.times(x.within()))
	y := l.moves(x.after(a.apply(x.sample), a.constant))
	return y.more(l.numbers.roundings(1, length))
}

// together is the sum of two executions.
func (l *level) together(x, y execution) execution {
	return l.rounds(execution{together(x.sample, y.sample), x.moved.plus(y.moved), x.wrong.plus(y.wrong)})
}

// multiplied is an execution times a number.
func (l *level) multiplied(x execution, factor *big.Rat) execution {
	x = l.read(x)
	m, e := dyadic(factor)
	size := above(new(big.Rat).Abs(factor))
	y := scaledBy(x.sample, grid{[]int64{m}, e, nothing()}, make([]int32, len(x.sample.m)))
	y.off = y.off.plus(size.times(x.sample.off))
	return l.rounds(x.after(y, size))
}

// stepped is an execution after x - step A^T activation(A x + b), with a constant.
//
// The product with step is taken before A^T. An execution that takes it after A^T rounds A^T v, of a length of at most
// c |v|, and here c times the rounding of v is counted: only roundings of roundings are more, and what subnormal numbers lose.
func (l *level) stepped(m reversible, a *activation, step, bound *big.Rat, x execution) execution {
	forward, back := m.ways()
	v := l.multiplied(l.activated(a, l.summed(forward, x.fresh())), new(big.Rat).Neg(step))
	w := l.summed(back, v)
	inputs, outputs := len(v.sample.m), len(w.sample.m)
	tiny := l.cost(back, inputs, outputs).tiny.plus(l.numbers.lost(outputs).scaled(2))
	added := w.wrong.plus(l.numbers.roundings(1, w.wrong)).plus(tiny.times(above(step).plus(number(1))))
	y := together(x.fresh().sample, w.sample)
	y.off = y.off.plus(above(bound).times(x.sample.off))
	return l.rounds(x.after(y, above(bound)).more(added))
}
