package main

import "math/big"

// turn is a complex number on a grid of 2^-50.
type turn struct{ re, im int64 }

const (
	// offRoot is what a root of unity is off by at most, as a power of two: each part by half a unit and little more.
	offRoot = -precise
	// offTurn is that of a product of two: both errors and the rounding, below 3 units.
	offTurn = 2 - precise
	digits2 = 192
)

// arctangent is arctan(p / q) for p <= q / 5 in units of 2^-192, off by less than 200 units: below 100 terms, each off by
// less than 2.
func arctangent(p, q int64) *big.Int {
	power := new(big.Int).Lsh(big.NewInt(p), digits2)
	power.Quo(power, big.NewInt(q))
	total, term := new(big.Int), new(big.Int)
	for k := int64(1); power.Sign() > 0; k += 2 {
		term.Quo(power, big.NewInt(k))
		if k%4 == 1 {
			total.Add(total, term)
		} else {
			total.Sub(total, term)
		}
		power.Quo(power.Mul(power, big.NewInt(p*p)), big.NewInt(q*q))
	}
	return total
}

// pi is Machin's formula in units of 2^-192, off by less than 4000.
var pi = func() *big.Int {
	sum := new(big.Int).Mul(big.NewInt(16), arctangent(1, 5))
	return sum.Sub(sum, new(big.Int).Mul(big.NewInt(4), arctangent(1, 239)))
}()

// turned is exp(i angle) for an angle in units of 2^-192, 0 <= angle < 2 pi or little more, that is off by less than
// 2^23 of them; it is off by less than 2^-50.
//
// The series have below 70 terms; a term is off by what rounding added to the terms before it, times at most
// exp(2 pi) < 600, so that all together is off by less than 2^30 units, which rounding to 2^-50 by half a unit for
// each part hides.
func turned(angle *big.Int) turn {
	parts := [2]*big.Int{new(big.Int), new(big.Int)}
	term := new(big.Int).Lsh(big.NewInt(1), digits2)
	for j := int64(1); term.Sign() > 0; j++ {
		part := parts[(j-1)%2]
		if (j-1)%4 < 2 {
			part.Add(part, term)
		} else {
			part.Sub(part, term)
		}
		term.Mul(term, angle).Rsh(term, digits2)
		term.Quo(term, big.NewInt(j))
	}
	return turn{shortened(parts[0]), shortened(parts[1])}
}

// roots are the n-th roots of unity exp(2 pi i k / n), each off by less than 2^-50.
func roots(n int) []turn {
	demand(n <= 1<<16, "a torus with too long a side")
	z := make([]turn, n)
	for k := range z {
		angle := new(big.Int).Mul(pi, big.NewInt(int64(2*k)))
		z[k] = turned(angle.Quo(angle, big.NewInt(int64(n))))
	}
	return z
}

// shortened is a / 2^(192 - 50) to the nearest.
func shortened(a *big.Int) int64 {
	half := new(big.Int).Lsh(big.NewInt(1), digits2-precise-1)
	return half.Add(half, a).Rsh(half, digits2-precise).Int64()
}

// after is the product of two roots of unity, off by less than 2^offTurn.
func (a turn) after(b turn) turn {
	re, _ := times(a.re, b.re).minus(times(a.im, b.im)).nearest(precise)
	im, _ := times(a.re, b.im).plus(times(a.im, b.re)).nearest(precise)
	return turn{re, im}
}
