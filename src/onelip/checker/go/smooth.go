package main

import (
	"math/big"
	"math/bits"
)

// span is a number between low 2^e and high 2^e, or between their negatives.
type span struct {
	low, high uint64
	e         int
	negative  bool
}

func (a fixed) span(halvings int) span { return span{low: a.low, high: a.high, e: -places - halvings} }

// spanned is numbers on a grid that fits.
func spanned(all []span) grid {
	top := lowest
	for _, s := range all {
		if s.high != 0 {
			top = most(top, bits.Len64(s.high)+s.e)
		}
	}
	g := grid{m: make([]int64, len(all)), off: nothing()}
	if top == lowest {
		return g
	}
	g.e = top - precise
	off := make([]int64, len(all))
	for i, s := range all {
		var low, high uint64
		if n := g.e - s.e; n >= 0 {
			low, high = s.low>>uint(n), ceiling(s.high, n)
		} else {
			low, high = s.low<<uint(-n), s.high<<uint(-n)
		}
		middle := low + (high-low)/2
		g.m[i], off[i] = int64(middle), int64(high-middle)
		if s.negative {
			g.m[i] = -g.m[i]
		}
	}
	g.off = lengthOf(off, g.e)
	return g
}

// point is t or -t for t = m 2^e.
type point struct {
	negative bool
	m        uint64
	e        int
}

// doubled is 2 t.
func (p point) doubled() point { return point{p.negative, p.m, p.e + 1} }

func (p point) decayed() decay { return decayed(p.m, p.e) }

// multiplied is t a / 2^halvings, with all digits that a has.
func (p point) multiplied(a fixed, halvings int) span {
	up := places - bits.Len64(p.m)
	m := p.m << uint(up)
	return span{productDown(m, a.low), productUp(m, a.high), p.e - up - halvings, p.negative}
}

// curve is a function of numbers.
type curve struct {
	kept  bool             // x for x > 0 is added to the values
	value func(point) span // of the function
	slope func(point) span // of its derivative, or nil
	low   *big.Rat         // slopes
	high  *big.Rat
	bend  *big.Rat // the largest second derivative; the smallest is flat or its negative
	flat  bool     // no second derivative is below 0
	lifts bool     // it is not 0 at 0
	cost  int      // how many products a value counts
}

var curves = map[string]*curve{
	"softplus": {
		kept:  true,
		value: func(p point) span { d := p.decayed(); return d.logarithm().span(d.halvings) },
		slope: logistic,
		low:   whole(0), high: whole(1), bend: big.NewRat(1, 4), flat: true, lifts: true,
	},
	"tanh": {
		value: hyperbolic,
		slope: func(p point) span { s := hill(p.doubled()); s.e += 2; return s },
		low:   whole(0), high: whole(1), bend: big.NewRat(77, 100),
	},
	"sigmoid": {
		value: logistic,
		slope: hill,
		low:   whole(0), high: big.NewRat(1, 4), bend: big.NewRat(97, 1000), lifts: true,
	},
	"elu":  {kept: true, value: saturating, low: whole(0), high: whole(1)},
	"silu": {value: swish, low: big.NewRat(-1, 10), high: big.NewRat(11, 10)},
	"mish": {value: mish, low: big.NewRat(-11253, 100000), high: big.NewRat(10885, 10000)},
	"gelu": {kept: true, value: gelu, low: big.NewRat(-12905, 100000), high: big.NewRat(112905, 100000), cost: 1 << 14},
	"gelu-tanh": {
		value: geluByTanh,
		low:   big.NewRat(-12905, 100000), high: big.NewRat(112905, 100000), cost: 1 << 10,
	},
	"softsign": {value: softsign, low: whole(0), high: whole(1)},
}

// logistic is 1 / (1 + e^-x).
func logistic(p point) span {
	d := p.decayed()
	if p.negative {
		return d.value.over(d.increased()).span(d.halvings)
	}
	return fixed{one, one}.over(d.increased()).span(0)
}

// hill is the derivative of logistic, e^-t / (1 + e^-t)^2.
func hill(p point) span {
	d := p.decayed()
	q := d.increased()
	return d.value.over(q).over(q).span(d.halvings)
}

// hyperbolic is tanh x: (1 - q) / (1 + q) for q = e^-2t. Where t is small, 1 - q is 2 t times a number.
func hyperbolic(p point) span {
	d := p.doubled().decayed()
	if d.halvings == 0 {
		return p.doubled().multiplied(d.part.over(d.increased()), 0)
	}
	s := d.whole().complement().over(d.increased()).span(0)
	s.negative = p.negative
	return s
}

// saturating is e^x - 1 below 0, and 0 above.
func saturating(p point) span {
	if !p.negative {
		return span{}
	}
	d := p.decayed()
	if d.halvings == 0 {
		return p.multiplied(d.part, 0)
	}
	s := d.whole().complement().span(0)
	s.negative = true
	return s
}

// swish is x / (1 + e^-x).
func swish(p point) span { return p.gated(p.decayed()) }

// gated is x / (1 + e^-y), where d is e^-|y|, y has the sign of x, and |x| e^-|y| is below 2^-2048 if that is all
// that d says.
func (p point) gated(d decay) span {
	if !p.negative {
		return p.multiplied(fixed{one, one}.over(d.increased()), 0)
	}
	if d.halvings == tiny { // t e^-t falls, and is below 2^(11 - 2954) there
		return span{high: 1, e: -tiny, negative: true}
	}
	return p.multiplied(d.value.over(d.increased()), d.halvings)
}

// mish is x tanh(log(1 + e^x)): for q = e^-|x|, x times (1/2 + q) / (1/2 + q + q^2), or q (1 + q/2) / (1 + q + q^2 / 2)
// below 0.
func mish(p point) span {
	d := p.decayed()
	q, half := d.whole(), fixed{one / 2, one / 2}
	if !p.negative {
		r := half.plus(q)
		return p.multiplied(r.over(r.plus(q.times(q))), 0)
	}
	if d.halvings == tiny { // as that of swish
		return span{high: 1, e: -tiny, negative: true}
	}
	r := d.value.times(fixed{one, one}.plus(q.halved(1)))
	return p.multiplied(r.over(d.increased().plus(q.times(q).halved(1))), d.halvings)
}

// softsign is x / (1 + |x|).
func softsign(p point) span {
	if p.m == 0 {
		return span{}
	}
	n := bits.Len64(p.m) + p.e
	if n <= 0 {
		t := fixed{p.m, p.m}.moved(p.e + places)
		return p.multiplied(fixed{one, one}.over(t.plus(fixed{one, one})), 0)
	}
	u := p.m << uint(places-bits.Len64(p.m)) // |x| is u 2^(n - 62), in [2^(n - 1), 2^n)
	inverse := fixed{one, one}.over(fixed{u, u}).halved(n)
	s := fixed{one, one}.over(inverse.plus(fixed{one, one})).span(0)
	s.negative = p.negative
	return s
}

// on is a function of the curve at all numbers of x, but for what they are off by.
func (x grid) on(f func(point) span) grid {
	all := make([]span, len(x.m))
	for i, m := range x.m {
		all[i] = f(point{m < 0, uint64(magnitude(m)), x.e})
	}
	return spanned(all)
}

// applied is the values at x.
func (c *curve) applied(x grid) grid {
	spend(c.cost, len(x.m))
	y := x.on(c.value)
	if c.kept {
		positive := grid{make([]int64, len(x.m)), x.e, nothing()}
		for i, m := range x.m {
			if m > 0 {
				positive.m[i] = m
			}
		}
		y = together(y, positive)
	}
	y.off = y.off.plus(above(c.constant()).times(x.off))
	return y
}

// slopes are the derivatives at x, which is off by as much as it says.
func (c *curve) slopes(x grid) grid {
	y := x.on(c.slope)
	y.off = y.off.plus(above(c.bend).times(x.off))
	return y
}

func (c *curve) constant() *big.Rat { return larger(c.high, new(big.Rat).Neg(c.low)) }

func readSmooth(v any, c *curve, input []int, what string) *activation {
	fields(v, what, "kind")
	k := c.constant()
	return &activation{outputs: input, square: multiply(k, k), low: c.low, high: c.high, constant: above(k), apply: c.applied, curve: c}
}
