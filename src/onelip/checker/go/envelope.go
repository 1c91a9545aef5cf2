package main

import (
	"math"
	"math/big"
	"math/bits"
)

// envelope is the lower triangle of a symmetric matrix in units of 2^-unitBits; row i begins at column first[i]
// and in the list at start[i].
type envelope struct {
	n            int
	first, start []int
	exact        []wide
}

func newEnvelope(n int, first func(int) int) *envelope {
	a := &envelope{n: n, first: make([]int, n), start: make([]int, n+1)}
	for i := range a.first {
		a.first[i] = first(i)
		a.start[i+1] = a.start[i] + i + 1 - a.first[i]
	}
	a.exact = make([]wide, a.start[n])
	return a
}

// at is where entry (i, j) stands.
func (a *envelope) at(i, j int) int { return a.start[i] + j - a.first[i] }

// tiled calls f for all entries, some rows at a time, column by column; rows of one call belong to no other.
func (a *envelope) tiled(f func(i, j int)) {
	tiles := (a.n + tile - 1) / tile
	parallel(tiles, func(t int) {
		low, high := (tiles-1-t)*tile, least((tiles-t)*tile, a.n)
		from := low
		for i := low; i < high; i++ {
			from = least(from, a.first[i])
		}
		for j := from; j < high; j++ {
			for i := most(low, j); i < high; i++ {
				if j >= a.first[i] {
					f(i, j)
				}
			}
		}
	})
}

// fill takes all entries, and says whether each fits.
func (a *envelope) fill(entry func(i, j int) (wide, bool)) bool {
	missing := make([]bool, a.n)
	a.tiled(func(i, j int) {
		x, fits := entry(i, j)
		a.exact[a.at(i, j)] = x
		missing[i] = missing[i] || !fits
	})
	for _, m := range missing {
		if m {
			return false
		}
	}
	return true
}

// positive says whether A + E has no negative eigenvalue, for every E with |E| <= off, in units.
//
// A Cholesky factor of A - m I in floating point is rounded to whole numbers L. The matrix
// R = A - m I - L L^T is exact, and A + E >= (m - |R| - |E|) I, wherever L came from.
func (a *envelope) positive(off upper) bool {
	spend(a.n, a.n, a.n)
	// About what rounding leaves: numbers of the factor are off by a factor of 2^-53, their products are up to 4.
	margin := widen(1).up(unitBits - 51 + bits.Len(uint(a.n)))
	l, ok := a.factor(margin.float())
	if !ok {
		return false
	}
	square := a.residual(l, margin)
	room := new(big.Rat).Sub(new(big.Rat).SetInt(margin.big()), off.fraction())
	return room.Sign() >= 0 && atLeast(multiply(room, room), square)
}

// factor is L in units of 2^(-unitBits / 2), rounded to whole numbers; false where there is none.
func (a *envelope) factor(margin float64) ([]int64, bool) {
	l := make([]float64, len(a.exact))
	inverse := make([]float64, a.n)
	column := func(i, j int) bool {
		from := most(a.first[i], a.first[j])
		x := a.exact[a.at(i, j)].float()
		if i == j {
			x -= margin
		}
		if from < j {
			x -= dotFloats(l[a.at(i, from):a.at(i, j)], l[a.at(j, from):a.at(j, j)])
		}
		if i == j {
			if !(x > 0) {
				return false
			}
			l[a.at(i, i)] = math.Sqrt(x)
			inverse[i] = 1 / l[a.at(i, i)]
		} else {
			l[a.at(i, j)] = x * inverse[j]
		}
		return true
	}
	for low := 0; low < a.n; low += tile {
		high := least(low+tile, a.n)
		from := low
		for i := low; i < high; i++ {
			from = least(from, a.first[i])
		}
		for j := from; j < high; j++ {
			for i := most(low, j); i < high; i++ {
				if j >= a.first[i] && !column(i, j) {
					return nil, false
				}
			}
		}
	}
	return a.wholeRows(l)
}

// wholeRows rounds a factor; false where its rows are too long for exact sums.
func (a *envelope) wholeRows(l []float64) ([]int64, bool) {
	m := make([]int64, len(l))
	for i := 0; i < a.n; i++ {
		length := 0.0
		for p := a.start[i]; p < a.start[i+1]; p++ {
			x := math.RoundToEven(l[p])
			length += x * x
			if !(length < 0x1p122) {
				return nil, false
			}
			m[p] = int64(x)
		}
	}
	return m, true
}

// residual is an upper bound of |A - m I - L L^T|^2 in Frobenius' norm.
//
// No entry of L L^T is larger than the square of its longest row, by Cauchy and Schwarz: nothing wraps.
func (a *envelope) residual(l []int64, margin wide) *big.Rat {
	sums := make([]float64, a.n)
	a.tiled(func(i, j int) {
		from := most(a.first[i], a.first[j])
		x := a.exact[a.at(i, j)].minus(product(l[a.at(i, from):a.at(i, j)+1], l[a.at(j, from):a.at(j, j)+1]))
		weight := 2.0
		if i == j {
			x, weight = x.minus(margin), 1
		}
		f := x.float()
		sums[i] += weight * f * f
	})
	total := 0.0
	for _, s := range sums {
		total += s
	}
	// At most 2^26 numbers >= 0 with few roundings each: off by a factor of less than 1 + 2^-25.
	return new(big.Rat).SetFloat64(total * (1 + 0x1p-20))
}
