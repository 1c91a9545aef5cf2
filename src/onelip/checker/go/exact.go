package main

import (
	"math"
	"math/big"
	"math/bits"
	"runtime"
)

// precise is how many bits the whole numbers of tensors have at most: a sum of
// 2^26 products of two of them stays below 2^126.
const precise = 50

// wide is a whole number of 128 bits in two's complement.
type wide struct{ hi, lo uint64 }

func magnitude(a int64) int64 {
	if a < 0 {
		return -a
	}
	return a
}

func widen(a int64) wide { return wide{uint64(a >> 63), uint64(a)} }

func (a wide) plus(b wide) wide {
	lo, carry := bits.Add64(a.lo, b.lo, 0)
	hi, _ := bits.Add64(a.hi, b.hi, carry)
	return wide{hi, lo}
}

func (a wide) minus(b wide) wide {
	lo, borrow := bits.Sub64(a.lo, b.lo, 0)
	hi, _ := bits.Sub64(a.hi, b.hi, borrow)
	return wide{hi, lo}
}

// times is the product of two whole numbers, exact.
func times(a, b int64) wide {
	hi, lo := bits.Mul64(uint64(a), uint64(b))
	hi -= uint64(a>>63)&uint64(b) + uint64(b>>63)&uint64(a)
	return wide{hi, lo}
}

// up is a 2^n modulo 2^128.
func (a wide) up(n int) wide {
	switch {
	case n == 0:
		return a
	case n >= 128:
		return wide{}
	case n >= 64:
		return wide{a.lo << uint(n-64), 0}
	}
	return wide{a.hi<<uint(n) | a.lo>>uint(64-n), a.lo << uint(n)}
}

func (a wide) magnitude() wide {
	if int64(a.hi) < 0 {
		return wide{}.minus(a)
	}
	return a
}

// length is the number of bits of |a|, which is below 2^127.
func (a wide) length() int {
	m := a.magnitude()
	if m.hi != 0 {
		return 64 + bits.Len64(m.hi)
	}
	return bits.Len64(m.lo)
}

// less says whether a < b for numbers that are not negative.
func (a wide) less(b wide) bool { return a.hi < b.hi || a.hi == b.hi && a.lo < b.lo }

// down is |a| / 2^n, rounded down, and whether that is exact; n >= 0.
func (a wide) down(n int) (wide, bool) {
	m := a.magnitude()
	switch {
	case n == 0:
		return m, true
	case n >= 128:
		return wide{}, m == wide{}
	case n >= 64:
		r := wide{0, m.hi >> uint(n-64)}
		return r, r.up(n) == m
	}
	r := wide{m.hi >> uint(n), m.lo>>uint(n) | m.hi<<uint(64-n)}
	return r, r.up(n) == m
}

// truncated is a / 2^n, rounded towards 0, and whether that is exact; n >= 0.
func (a wide) truncated(n int) (wide, bool) {
	r, exact := a.down(n)
	if int64(a.hi) < 0 {
		r = wide{}.minus(r)
	}
	return r, exact
}

// nearest is a / 2^n to the nearest whole number, off by at most 1/2, and whether
// it is exact. The caller knows that it fits into 62 bits.
func (a wide) nearest(n int) (int64, bool) {
	if n <= 0 {
		return int64(a.up(-n).lo), true
	}
	r, exact := a.down(n)
	if !exact {
		half, _ := a.down(n - 1)
		r.lo += half.lo & 1
	}
	if int64(a.hi) < 0 {
		return -int64(r.lo), exact
	}
	return int64(r.lo), exact
}

func (a wide) float() float64 {
	m := a.magnitude()
	f := math.Ldexp(float64(m.hi), 64) + float64(m.lo)
	if int64(a.hi) < 0 {
		return -f
	}
	return f
}

func (a wide) big() *big.Int {
	m := a.magnitude()
	r := new(big.Int).SetUint64(m.hi)
	r.Lsh(r, 64).Or(r, new(big.Int).SetUint64(m.lo))
	if int64(a.hi) < 0 {
		r.Neg(r)
	}
	return r
}

// widest is a big number as a wide one; the caller knows that it is in [0, 2^127).
func widest(a *big.Int) wide {
	return wide{new(big.Int).Rsh(a, 64).Uint64(), new(big.Int).And(a, new(big.Int).SetUint64(math.MaxUint64)).Uint64()}
}

// raised holds whole numbers a with |a| <= 2^50 as a + 2^50: products of numbers
// without signs are one instruction.
type raised []uint64

const lift = 1 << precise

func raise(a int64) uint64 { return uint64(a + lift) }

// dot is the sum of (a_i + 2^50)(b_i + 2^50) modulo 2^128.
func dot(a, b raised) wide {
	if runtime.GOARCH == "wasm" { // where a product of 128 bits is no instruction
		if s, ok := dotHalves(a, b); ok {
			return s
		}
	}
	var lo, hi, c uint64
	b = b[:len(a)]
	for i, x := range a {
		h, l := bits.Mul64(x, b[i])
		lo, c = bits.Add64(lo, l, 0)
		hi, _ = bits.Add64(hi, h, c)
	}
	return wide{hi, lo}
}

// dotHalves is dot by products of 26 bits, for numbers below 2^52; false for others.
func dotHalves(a, b raised) (s wide, ok bool) {
	var all uint64
	for len(a) > 0 {
		n := least(len(a), 1<<10) // sums of so many of the products of x and y below 2^26, and twice that, fit
		var low, mid, high uint64
		other := b[:n]
		for i, x := range a[:n] {
			y := other[i]
			all |= x | y
			x0, x1, y0, y1 := x&(1<<26-1), x>>26, y&(1<<26-1), y>>26
			low += x0 * y0
			mid += x0*y1 + x1*y0
			high += x1 * y1
		}
		s = s.plus(wide{0, low}).plus(wide{0, mid}.up(26)).plus(wide{0, high}.up(52))
		a, b = a[n:], b[n:]
	}
	return s, all < 1<<52
}

// lowered is the sum of a_i b_i, n products, from dot and the sums of a_i and b_i:
// exact, as it is below 2^127.
func lowered(total wide, n int, sumA, sumB wide) wide {
	return total.minus(sumA.plus(sumB).up(precise)).minus(widen(int64(n)).up(2 * precise))
}

// sum is the sum of the numbers in a, exact.
func sum(a []int64) wide {
	var s wide
	for _, x := range a {
		s = s.plus(widen(x))
	}
	return s
}

// squares is the sum of squares of numbers up to 2^50 in absolute value, at most 2^26 of them.
func squares(a []int64) wide {
	var lo, hi, c uint64
	for _, x := range a {
		if x < 0 {
			x = -x
		}
		h, l := bits.Mul64(uint64(x), uint64(x))
		lo, c = bits.Add64(lo, l, 0)
		hi, _ = bits.Add64(hi, h, c)
	}
	return wide{hi, lo}
}
