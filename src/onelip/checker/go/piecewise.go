package main

import (
	"math/big"
	"sort"
)

// dyad is m 2^e, exact.
type dyad struct {
	m *big.Int
	e int
}

func newDyad(m int64, e int) dyad { return dyad{big.NewInt(m), e} }

func (a dyad) times(b dyad) dyad  { return dyad{new(big.Int).Mul(a.m, b.m), a.e + b.e} }
func (a dyad) minus(b dyad) dyad  { return a.plus(dyad{new(big.Int).Neg(b.m), b.e}) }
func (a dyad) rational() *big.Rat { return times2(new(big.Rat).SetInt(a.m), a.e) }

func (a dyad) plus(b dyad) dyad {
	switch {
	case a.m.Sign() == 0:
		return b
	case b.m.Sign() == 0:
		return a
	case a.e < b.e:
		a, b = b, a
	}
	m := new(big.Int).Lsh(a.m, uint(a.e-b.e))
	return dyad{m.Add(m, b.m), b.e}
}

// span is the number with as many digits as a span has.
func (a dyad) span() span {
	m := new(big.Int).Abs(a.m)
	n := m.BitLen() - places
	if n <= 0 {
		return span{m.Uint64(), m.Uint64(), a.e, a.m.Sign() < 0}
	}
	low := new(big.Int).Rsh(m, uint(n)).Uint64()
	return span{low, low + 1, a.e + n, a.m.Sign() < 0}
}

// piecewise is a piecewise linear or quadratic function for each column of its tensors.
type piecewise struct {
	knots, slopes, bends *tensor // bends may be nil
	count                int     // of knots
	columns              int
	values               []dyad // at the knots
	low, high            dyad   // slopes
	at                   *broadcast
	constant             upper
}

const mostKnots = 1 << 12

func (b *bundle) readPiecewise(v any, input []int, what string) *activation {
	f := fields(v, what, "kind", "knots", "slopes", "bends", "value")
	p := &piecewise{knots: b.floats(f["knots"], what), slopes: b.floats(f["slopes"], what)}
	value := b.floats(f["value"], what)
	p.at, p.columns = onto(value, input, what), value.length()
	fits := func(t *tensor, n int) bool {
		return len(t.shape) > 0 && t.shape[0] == n && tuple(t.shape[1:]) == tuple(value.shape)
	}
	demand(len(p.knots.shape) > 0 && p.knots.shape[0] >= 1 && p.knots.shape[0] <= mostKnots, "%s: the knots do not fit: there are 1 to %d", what, mostKnots)
	p.count = p.knots.shape[0]
	demand(fits(p.knots, p.count) && fits(p.slopes, p.count+1), "%s: knots, slopes and the value do not fit together", what)
	if f["bends"] != nil {
		p.bends = b.floats(f["bends"], what)
		demand(p.count > 1 && fits(p.bends, p.count-1), "%s: the bends do not fit the knots", what)
	}
	for i := p.columns; i < p.knots.length(); i++ {
		demand(p.knots.double(i-p.columns) <= p.knots.double(i), "%s: the knots do not fit: they are not in order", what)
	}
	p.prepare(value)
	low, high := p.low.rational(), p.high.rational()
	constant := larger(high, new(big.Rat).Neg(low))
	p.constant = above(constant)
	return &activation{outputs: input, square: multiply(constant, constant), low: low, high: high, constant: p.constant, apply: p.apply}
}

// number is entry (i, column) of a tensor.
func (p *piecewise) number(t *tensor, i, column int) dyad {
	return newDyad(t.at(i*p.columns + column))
}

// prepare finds the values at the knots and the slopes at the ends of pieces.
func (p *piecewise) prepare(value *tensor) {
	spend(1<<10, p.slopes.length())
	p.values = make([]dyad, p.knots.length())
	p.low = newDyad(p.slopes.at(0))
	p.high = p.low
	seen := func(s dyad) {
		if s.minus(p.low).m.Sign() < 0 {
			p.low = s
		}
		if s.minus(p.high).m.Sign() > 0 {
			p.high = s
		}
	}
	for i := 0; i < p.slopes.length(); i++ {
		seen(newDyad(p.slopes.at(i)))
	}
	for c := 0; c < p.columns; c++ {
		y, bytes := newDyad(value.at(c)), 0
		for i := 0; i < p.count; i++ {
			p.values[i*p.columns+c] = y
			bytes += 48 + y.m.BitLen()/8
			if i+1 == p.count {
				break
			}
			t := p.number(p.knots, i+1, c).minus(p.number(p.knots, i, c))
			if p.bends != nil {
				seen(p.number(p.slopes, i+1, c).plus(p.number(p.bends, i, c).times(t)))
			}
			y = p.along(y, i, c, t)
		}
		keep(1, bytes)
	}
}

// along is the value at t after knot i, where it is y, on the piece that begins there.
func (p *piecewise) along(y dyad, i, c int, t dyad) dyad {
	y = y.plus(p.number(p.slopes, i+1, c).times(t))
	if p.bends != nil && i+1 < p.count {
		half := p.number(p.bends, i, c).times(t).times(t)
		half.e--
		y = y.plus(half)
	}
	return y
}

// at1 is the value of column c at x.
func (p *piecewise) at1(x dyad, c int) dyad {
	from := func(i int) dyad { return x.minus(p.number(p.knots, i, c)) }
	i := sort.Search(p.count, func(i int) bool { return from(i).m.Sign() < 0 }) - 1 // the last knot that is not above x
	if i < 0 {
		return p.values[c].plus(p.number(p.slopes, 0, c).times(from(0)))
	}
	return p.along(p.values[i*p.columns+c], i, c, from(i))
}

func (p *piecewise) apply(x grid) grid {
	spend(1<<11, len(x.m))
	all := make([]span, len(x.m))
	for i, c := range p.at.places() {
		all[i] = p.at1(newDyad(x.m[i], x.e), int(c)).span()
	}
	y := spanned(all)
	y.off = y.off.plus(p.constant.times(x.off))
	return y
}
