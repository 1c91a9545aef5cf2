package main

import (
	"math"
	"math/big"
	"math/bits"
)

// fixed is a number between low 2^-62 and high 2^-62, at most 2.
type fixed struct{ low, high uint64 }

const (
	places = 62
	one    = 1 << places
)

func productDown(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi<<(64-places) | lo>>places
}

func productUp(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	r := hi<<(64-places) | lo>>places
	if lo<<(64-places) != 0 {
		r++
	}
	return r
}

// times is a product of at most 2.
func (a fixed) times(b fixed) fixed {
	return fixed{productDown(a.low, b.low), productUp(a.high, b.high)}
}

func (a fixed) plus(b fixed) fixed { return fixed{a.low + b.low, a.high + b.high} }

// over is a / b, at most 2, for b >= 1/2.
func (a fixed) over(b fixed) fixed {
	low, _ := bits.Div64(a.low>>(64-places), a.low<<places, b.high)
	high, rest := bits.Div64(a.high>>(64-places), a.high<<places, b.low)
	if rest != 0 {
		high++
	}
	return fixed{low, high}
}

// complement is 1 - a, where that is in [0, 1].
func (a fixed) complement() fixed {
	return fixed{one - smallest(a.high, one), one - smallest(a.low, one)}
}

func smallest(a, b uint64) uint64 {
	if a < b {
		return a
	}
	return b
}

// halved is a / 2^n, n >= 0.
func (a fixed) halved(n int) fixed {
	return fixed{a.low >> uint(n), ceiling(a.high, n)}
}

// moved is a 2^n, which is at most 2.
func (a fixed) moved(n int) fixed {
	if n < 0 {
		return a.halved(-n)
	}
	return fixed{a.low << uint(n), a.high << uint(n)}
}

// ceiling is a / 2^n, rounded upwards; n >= 0.
func ceiling(a uint64, n int) uint64 {
	r := a >> uint(n)
	if n >= 64 && a != 0 || n < 64 && r<<uint(n) != a {
		r++
	}
	return r
}

const (
	terms    = 22
	finest   = 90   // t is taken in units of 2^-90
	farthest = 11   // from 2^11 on e^-t is below 2^-2048, which is all that is said
	tiny     = 2048 // the power of 2 for it
)

// shares are 1/j.
var shares = func() (s [2*terms + 2]fixed) {
	for j := uint64(1); j < uint64(len(s)); j++ {
		s[j] = fixed{one / j, (one-1)/j + 1}
	}
	return s
}()

// The logarithm of 2 is between these, in units of 2^-90: it is 2 atanh(1/3), the sum of 2 / ((2 j + 1) 3^(2 j + 1)).
var logTwoLow, logTwoHigh = func() (wide, wide) {
	const more, count = 60, 100
	sum := new(big.Int)
	part := new(big.Int).Lsh(big.NewInt(2), finest+more)
	part.Quo(part, big.NewInt(3))
	for j := int64(0); j < count; j++ {
		sum.Add(sum, new(big.Int).Quo(part, big.NewInt(2*j+1)))
		part.Quo(part, big.NewInt(9))
	}
	// Each term is rounded down by less than 3 units, and what follows the last is below one.
	low := new(big.Int).Rsh(sum, more)
	high := sum.Add(sum, big.NewInt(3*count+1))
	high.Rsh(high, more)
	return widest(low), widest(high.Add(high, big.NewInt(1)))
}()

// repeated is n a modulo 2^128.
func (a wide) repeated(n uint64) wide {
	hi, lo := bits.Mul64(a.lo, n)
	return wide{hi + a.hi*n, lo}
}

// decay is e^-t as value / 2^halvings: t is rest + halvings log 2.
type decay struct {
	rest     fixed
	part     fixed // (1 - e^-rest) / rest, or 1 for rest 0
	value    fixed // e^-rest
	halvings int
}

// decayed takes t = m 2^e; m is at most 2^62.
func decayed(m uint64, e int) decay {
	if m != 0 && bits.Len64(m)+e > farthest {
		return faded
	}
	low, exact := wide{0, m}, true
	if n := e + finest; n >= 0 {
		low = low.up(n)
	} else {
		low, exact = low.down(-n)
	}
	high := low
	if !exact {
		high = high.plus(widen(1))
	}
	return decayedBetween(low, high)
}

// faded is all that is said of e^-t far away.
var faded = decay{value: fixed{0, one}, halvings: tiny}

// decayedBetween takes a t between two numbers in units of 2^-90 that are a few units apart and below 2^farthest.
func decayedBetween(low, high wide) decay {
	// A float says how often log 2 goes into t, up to one.
	k := uint64(low.float() / (math.Ln2 * (1 << finest)))
	a, b := low.minus(logTwoHigh.repeated(k)), high.minus(logTwoLow.repeated(k))
	if int64(a.hi) < 0 {
		k = most64(k, 1) - 1
		a, b = low.minus(logTwoHigh.repeated(k)), high.minus(logTwoLow.repeated(k))
	}
	d := decay{halvings: int(k)}
	a, _ = a.down(finest - places)
	b, exact := b.down(finest - places)
	d.rest = fixed{a.lo, b.lo}
	if !exact {
		d.rest.high++
	}
	d.part = shrinking(d.rest)
	d.value = d.rest.times(d.part).complement()
	return d
}

func most64(a, b uint64) uint64 {
	if a < b {
		return b
	}
	return a
}

// shrinking is (1 - e^-r) / r for r in [0, 1]: 1 - r/2 (1 - r/3 (1 - ...)).
//
// Each bracket is an alternating series of falling terms that begins with 1, so it is in [0, 1]: that is what the
// innermost one is taken for.
func shrinking(r fixed) fixed {
	p := fixed{0, one}
	for j := terms; j >= 2; j-- {
		p = r.times(p).times(shares[j]).complement()
	}
	return p
}

// whole is e^-t, in full.
func (d decay) whole() fixed { return d.value.halved(d.halvings) }

// increased is 1 + e^-t.
func (d decay) increased() fixed { return fixed{one, one}.plus(d.whole()) }

// logarithm is log(1 + e^-t) as a number times 2^-halvings.
//
// It is 2 atanh(s), s = e^-t / (2 + e^-t) <= 1/3, and atanh(s) / s = 1 + z (1/3 + z (1/5 + ...)), z = s^2. Each bracket
// is in [0, 1].
func (d decay) logarithm() fixed {
	s := d.value.over(d.increased().plus(fixed{one, one}))
	z := s.halved(d.halvings)
	z = z.times(z)
	p := fixed{0, one}
	for j := terms; j >= 0; j-- {
		p = z.times(p).plus(shares[2*j+1])
	}
	p = s.times(p)
	return p.plus(p)
}
