package main

import (
	"math/big"
	"math/bits"
)

// triple is a whole number of 192 bits in two's complement.
type triple struct{ hi, mid, lo uint64 }

func (a wide) triple() triple { return triple{uint64(int64(a.hi) >> 63), a.hi, a.lo} }

func (a triple) plus(b triple) triple {
	lo, carry := bits.Add64(a.lo, b.lo, 0)
	mid, carry := bits.Add64(a.mid, b.mid, carry)
	hi, _ := bits.Add64(a.hi, b.hi, carry)
	return triple{hi, mid, lo}
}

func (a triple) minus(b triple) triple {
	lo, borrow := bits.Sub64(a.lo, b.lo, 0)
	mid, borrow := bits.Sub64(a.mid, b.mid, borrow)
	hi, _ := bits.Sub64(a.hi, b.hi, borrow)
	return triple{hi, mid, lo}
}

func (a triple) magnitude() triple {
	if int64(a.hi) < 0 {
		return triple{}.minus(a)
	}
	return a
}

func (a triple) big() *big.Int {
	m := a.magnitude()
	r := new(big.Int).SetUint64(m.hi)
	for _, part := range [2]uint64{m.mid, m.lo} {
		r.Lsh(r, 64).Or(r, new(big.Int).SetUint64(part))
	}
	if int64(a.hi) < 0 {
		r.Neg(r)
	}
	return r
}

// longestEntry is how many bits numbers have at most that become entries of a form.
const longestEntry = 122

// moved is a 2^n without its fraction, and whether it has at most 122 bits.
func (a triple) moved(n int) (wide, bool) {
	m := a.magnitude()
	length := bits.Len64(m.lo)
	if m.hi != 0 {
		length = 128 + bits.Len64(m.hi)
	} else if m.mid != 0 {
		length = 64 + bits.Len64(m.mid)
	}
	if length == 0 || length+n <= 0 {
		return wide{}, true
	}
	if length+n > longestEntry {
		return wide{}, false
	}
	for ; n <= -64; n += 64 {
		m = triple{0, m.hi, m.mid}
	}
	r := wide{m.mid, m.lo}
	if n >= 0 {
		r = r.up(n)
	} else {
		k := uint(-n)
		r = wide{m.mid>>k | m.hi<<(64-k), m.lo>>k | m.mid<<(64-k)}
	}
	if int64(a.hi) < 0 {
		r = wide{}.minus(r)
	}
	return r, true
}

// mixed is the sum of products x_r v_r, from the sum of all x_r: exact, where it is below 2^191.
func mixed(x []wide, v []int64, t triple) triple {
	var hi, mid, lo, c uint64
	v = v[:len(x)]
	for r, a := range x {
		raised := uint64(v[r]) ^ 1<<63 // v + 2^63
		h1, l1 := bits.Mul64(a.lo, raised)
		h2, l2 := bits.Mul64(a.hi, raised)
		h1, c = bits.Add64(h1, l2, 0)
		h2 += c - raised&uint64(int64(a.hi)>>63)
		lo, c = bits.Add64(lo, l1, 0)
		mid, c = bits.Add64(mid, h1, c)
		hi, _ = bits.Add64(hi, h2, c)
	}
	return triple{hi, mid, lo}.minus(triple{t.hi<<63 | t.mid>>1, t.mid<<63 | t.lo>>1, t.lo << 63})
}

// product is the sum of a_i b_i: exact, where it is below 2^127.
func product(a, b []int64) wide {
	var hi, lo, c uint64
	b = b[:len(a)]
	for i, x := range a {
		y := b[i]
		h, l := bits.Mul64(uint64(x), uint64(y))
		h -= uint64(x>>63)&uint64(y) + uint64(y>>63)&uint64(x)
		lo, c = bits.Add64(lo, l, 0)
		hi, _ = bits.Add64(hi, h, c)
	}
	return wide{hi, lo}
}
