package main

import (
	"math"
	"math/big"
	"testing"
)

func bigTriple(bits int) *big.Int {
	a := new(big.Int).Rand(source, new(big.Int).Lsh(bigs(1), uint(source.Intn(bits)+1)))
	if source.Intn(2) == 0 {
		a.Neg(a)
	}
	return a
}

func tripled(a *big.Int) triple {
	m := new(big.Int).Abs(a)
	r := triple{new(big.Int).Rsh(m, 128).Uint64(), new(big.Int).Rsh(m, 64).Uint64(), m.Uint64()}
	r.mid = new(big.Int).And(new(big.Int).Rsh(m, 64), new(big.Int).SetUint64(math.MaxUint64)).Uint64()
	r.lo = new(big.Int).And(m, new(big.Int).SetUint64(math.MaxUint64)).Uint64()
	if a.Sign() < 0 {
		return triple{}.minus(r)
	}
	return r
}

func TestTriplesAreThoseOfMathBig(t *testing.T) {
	for n := 0; n < 20000; n++ {
		a, b := bigTriple(190), bigTriple(190)
		if tripled(a).big().Cmp(a) != 0 || tripled(a).plus(tripled(b)).big().Cmp(new(big.Int).Add(a, b)) != 0 ||
			tripled(a).minus(tripled(b)).big().Cmp(new(big.Int).Sub(a, b)) != 0 {
			t.Fatal(a, b)
		}
		shift := source.Intn(420) - 280
		exact := new(big.Int).Abs(a)
		if shift >= 0 {
			exact.Lsh(exact, uint(shift))
		} else {
			exact.Rsh(exact, uint(-shift))
		}
		if a.Sign() < 0 {
			exact.Neg(exact)
		}
		v, fits := tripled(a).moved(shift)
		if fits != (exact.BitLen() <= longestEntry) || fits && v.big().Cmp(exact) != 0 {
			t.Fatal(a, shift, v.big(), fits)
		}
	}
}

func TestMixedProductsAreExact(t *testing.T) {
	for n := 0; n < 500; n++ {
		size := source.Intn(100)
		x, v, a, b := make([]wide, size), make([]int64, size), make([]int64, size), make([]int64, size)
		total, exact, exact2 := triple{}, new(big.Int), new(big.Int)
		for i := range x {
			x[i], v[i] = times(integral(54), integral(61)), 2*integral(61)
			total = total.plus(x[i].triple())
			exact.Add(exact, new(big.Int).Mul(x[i].big(), bigs(v[i])))
			a[i], b[i] = integral(60), integral(58)
			exact2.Add(exact2, new(big.Int).Mul(bigs(a[i]), bigs(b[i])))
		}
		if mixed(x, v, total).big().Cmp(exact) != 0 || product(a, b).big().Cmp(exact2) != 0 {
			t.Fatal(exact, exact2)
		}
	}
	const most = 1 << 13 // the longest block of a form, with the largest numbers
	x, v, total := make([]wide, most), make([]int64, most), triple{}
	for i := range x {
		x[i], v[i] = times(-(1<<54-1), 1<<62), 1<<62
		total = total.plus(x[i].triple())
	}
	exact := new(big.Int).Lsh(bigs(-(1<<54 - 1)), 62+62+13)
	if mixed(x, v, total).big().Cmp(exact) != 0 {
		t.Fatal("wraps")
	}
}
