package main

import (
	"math"
	"math/big"
	"testing"
)

// entriesOf is a random symmetric matrix with a 1 on its diagonal, in units of 2^-unitBits.
func entriesOf(n int, first func(int) int) *envelope {
	a := newEnvelope(n, first)
	a.fill(func(i, j int) (wide, bool) {
		if i == j {
			return widen(1).up(unitBits), true
		}
		return times(integral(60), integral(53)), true
	})
	return a
}

func TestResidualsAreThoseOfMathBig(t *testing.T) {
	for n := 0; n < 60; n++ {
		size := 1 + source.Intn(40)
		band := source.Intn(size)
		a := entriesOf(size, func(i int) int { return most(0, i-band) })
		l := make([]int64, len(a.exact))
		for p := range l {
			l[p] = integral(59 - source.Intn(4))
		}
		at := func(i, j int) *big.Int {
			if j > i || j < a.first[i] {
				return new(big.Int)
			}
			return bigs(l[a.at(i, j)])
		}
		margin := widen(1).up(80 + source.Intn(36))
		total := new(big.Int)
		for i := 0; i < size; i++ {
			for j := 0; j < size; j++ {
				x := new(big.Int)
				if p, q := most(i, j), least(i, j); q >= a.first[p] {
					x.Set(a.exact[a.at(p, q)].big())
				}
				if i == j {
					x.Sub(x, margin.big())
				}
				for k := 0; k < size; k++ {
					x.Sub(x, new(big.Int).Mul(at(i, k), at(j, k)))
				}
				total.Add(total, x.Mul(x, x))
			}
		}
		exact := new(big.Rat).SetInt(total)
		square := a.residual(l, margin)
		if square.Cmp(exact) < 0 || square.Cmp(multiply(exact, new(big.Rat).Add(whole(1), power(-18)))) > 0 {
			t.Fatal(size, square, exact)
		}
	}
}

func TestRoomForWhatIsOff(t *testing.T) {
	for _, n := range []int{1, 2, 33, 100} {
		a := entriesOf(n, func(i int) int { return i })
		margin := power(unitBits - 51 + big.NewInt(int64(n)).BitLen())
		for k, valid := range map[int]bool{-20: true, -1: true, 1: false, 40: false} {
			if a.positive(above(times2(margin, k))) != valid {
				t.Error(n, k)
			}
		}
		a.exact[a.at(n-1, n-1)] = widest(new(big.Int).Quo(margin.Num(), bigs(2))) // less than the margin
		if a.positive(nothing()) {
			t.Error(n, "an eigenvalue of half the margin")
		}
	}
}

func TestFactorsThatAreTooLong(t *testing.T) {
	for _, x := range []float64{0x1p61, 0x1p70, math.Inf(1), math.NaN(), -0x1p62} {
		a := newEnvelope(2, func(int) int { return 0 })
		if _, ok := a.wholeRows([]float64{1, x, 1}); ok {
			t.Error(x)
		}
		if l, ok := a.wholeRows([]float64{0x1p60, -0x1p59, 0.75}); !ok || l[0] != 1<<60 || l[1] != -1<<59 || l[2] != 1 {
			t.Error(l)
		}
	}
}
