package main

import (
	"math"
	"math/big"
)

// matrix is rows x columns whole numbers of at most 2^50 in absolute value, times 2^e.
type matrix struct {
	rows, cols int
	m          []int64
	e          int
}

const widestGram = 1 << 13

// thin is the matrix with no more rows than columns: itself or its transpose.
func (a matrix) thin() matrix {
	if a.rows <= a.cols {
		return a
	}
	t := matrix{a.cols, a.rows, make([]int64, len(a.m)), a.e}
	for i := 0; i < a.rows; i++ {
		for j := 0; j < a.cols; j++ {
			t.m[j*a.rows+i] = a.m[i*a.cols+j]
		}
	}
	return t
}

// below says whether |A + E| <= c for every E with |E| <= off (off in Frobenius' norm, say).
//
// With G = A A^T and T at most ((c - off) / 2^e)^2, a Cholesky factor of t I - G in floating point is
// rounded to whole numbers L. The matrix R = t I - G - L L^T is exact, and G <= t I - R, so
// that t + |R| <= T is a proof, wherever L came from.
func (a matrix) below(c *big.Rat, off upper) bool {
	room := new(big.Rat).Sub(c, off.fraction())
	demand(len(a.m) <= largest, "a matrix with too many entries")
	if room.Sign() < 0 {
		return false
	}
	square := floor(times2(multiply(room, room), -2*a.e))
	if squares(a.m).big().Cmp(square) <= 0 {
		return true
	}
	a = a.thin()
	demand(a.rows <= widestGram, "a matrix with more than %d rows and columns", widestGram)
	spend(a.rows, a.rows, a.rows+a.cols)
	limit := widest(square) // square < sum of squares < 2^127
	slack, _ := limit.down(36)
	t := limit.minus(slack)
	g := newGram(a)
	if !g.subtractFrom(t) {
		return false
	}
	rest, ok := g.residual(t)
	return ok && rest.Cmp(slack.big()) <= 0
}

// gram has the lower triangle of A A^T, exact; row i begins at i (i + 1) / 2 and
// is zero before column first[i].
type gram struct {
	n      int
	exact  []wide
	first  []int
	factor []float64
}

func at(i, j int) int { return i*(i+1)/2 + j }

const tile = 32

func least(a, b int) int {
	if a < b {
		return a
	}
	return b
}

func most(a, b int) int { return a + b - least(a, b) }

func newGram(a matrix) *gram {
	n := a.rows
	g := &gram{n: n, exact: make([]wide, at(n, 0)), first: make([]int, n)}
	lifted := make(raised, len(a.m))
	sums := make([]wide, n)
	from, to := make([]int, n), make([]int, n)
	for i := 0; i < n; i++ {
		row := a.m[i*a.cols : (i+1)*a.cols]
		sums[i] = sum(row)
		from[i] = a.cols
		for k, x := range row {
			lifted[i*a.cols+k] = raise(x)
			if x != 0 {
				to[i] = k + 1
				if from[i] > k {
					from[i] = k
				}
			}
		}
	}
	blocks := (n + tile - 1) / tile
	parallel(blocks, func(b int) {
		b = blocks - 1 - b
		low, high := b*tile, least((b+1)*tile, n)
		for j := 0; j < high; j++ {
			for i := most(low, j); i < high; i++ {
				start, end := most(from[i], from[j]), least(to[i], to[j])
				if start >= end {
					continue
				}
				if 2*(end-start) > a.cols { // then all of both rows: their sums are known
					total := dot(lifted[i*a.cols:(i+1)*a.cols], lifted[j*a.cols:(j+1)*a.cols])
					g.exact[at(i, j)] = lowered(total, a.cols, sums[i], sums[j])
					continue
				}
				var s wide
				for k := start; k < end; k++ {
					if x := a.m[i*a.cols+k]; x != 0 {
						s = s.plus(times(x, a.m[j*a.cols+k]))
					}
				}
				g.exact[at(i, j)] = s
			}
		}
	})
	for i := range g.first {
		for g.first[i] < i && g.exact[at(i, g.first[i])] == (wide{}) {
			g.first[i]++
		}
	}
	return g
}

// subtractFrom factors t I - G in floating point, and says whether that worked.
func (g *gram) subtractFrom(t wide) bool {
	n := g.n
	l := make([]float64, at(n, 0))
	g.factor = l
	shift := t.float()
	for low := 0; low < n; low += tile {
		high := least(low+tile, n)
		for j := 0; j < high; j++ {
			rowJ := l[at(j, 0):at(j, j)]
			i := low
			if j >= low {
				i = j + 1
				x := shift - g.exact[at(j, j)].float()
				for _, y := range rowJ[g.first[j]:] {
					x -= y * y
				}
				if !(x > 0) {
					return false
				}
				l[at(j, j)] = math.Sqrt(x)
			}
			inverse := 1 / l[at(j, j)]
			for ; i < high; i++ {
				if g.first[i] > j {
					continue
				}
				from := most(g.first[i], g.first[j])
				x := -g.exact[at(i, j)].float()
				if from < j {
					x -= dotFloats(l[at(i, from):at(i, j)], rowJ[from:])
				}
				l[at(i, j)] = x * inverse
			}
		}
	}
	return true
}

func dotFloats(a, b []float64) float64 {
	var s, t, u, v float64
	b = b[:len(a)]
	for len(a) >= 4 && len(b) >= 4 {
		s += a[0] * b[0]
		t += a[1] * b[1]
		u += a[2] * b[2]
		v += a[3] * b[3]
		a, b = a[4:], b[4:]
	}
	for i := range a {
		s += a[i] * b[i]
	}
	return s + t + u + v
}

// residual is an upper bound of |t I - G - L L^T| in Frobenius' norm, for the rounded factor L; false
// where its numbers are too large for exact sums.
func (g *gram) residual(t wide) (*big.Int, bool) {
	n := g.n
	unit := (t.length()+1)/2 - precise
	if unit < 0 {
		unit = 0
	}
	l := make([]int64, len(g.factor))
	lifted := make(raised, len(g.factor))
	sums := make([]wide, n)
	for i := 0; i < n; i++ {
		for j := 0; j <= i; j++ {
			x := math.RoundToEven(math.Ldexp(g.factor[at(i, j)], -unit))
			if !(math.Abs(x) <= lift) {
				return nil, false
			}
			l[at(i, j)], lifted[at(i, j)] = int64(x), raise(int64(x))
		}
		row := l[at(i, 0):at(i+1, 0)]
		sums[i] = sum(row)
		if squares(row).length()+2*unit > 126 {
			return nil, false
		}
	}
	// By Cauchy and Schwarz no entry of L L^T is longer than its diagonal, so nothing below wraps.
	blocks := (n + tile - 1) / tile
	parallel(blocks, func(b int) {
		b = blocks - 1 - b
		low, high := b*tile, least((b+1)*tile, n)
		var before [tile]wide // the sum of row i up to column j
		for j := 0; j < high; j++ {
			rowJ := lifted[at(j, 0):at(j+1, 0)]
			for i := most(low, j); i < high; i++ {
				before[i-low] = before[i-low].plus(widen(l[at(i, j)]))
				if g.first[i] > j {
					continue
				}
				from := most(g.first[i], g.first[j])
				var p wide
				if 2*from > j {
					for k := from; k <= j; k++ {
						p = p.plus(times(l[at(i, k)], l[at(j, k)]))
					}
				} else {
					p = lowered(dot(lifted[at(i, 0):at(i, j+1)], rowJ), j+1, before[i-low], sums[j])
				}
				g.exact[at(i, j)] = g.exact[at(i, j)].plus(p.up(2 * unit))
			}
		}
	})
	for i := 0; i < n; i++ {
		g.exact[at(i, i)] = g.exact[at(i, i)].minus(t)
	}
	return frobenius(g.exact, n), true
}

// frobenius is an upper bound of the norm of a symmetric matrix, from its lower triangle.
func frobenius(entries []wide, n int) *big.Int {
	longest := 0
	for _, x := range entries {
		if k := x.length(); k > longest {
			longest = k
		}
	}
	cut := longest - 48
	if cut < 0 {
		cut = 0
	}
	var total wide
	for i := 0; i < n; i++ {
		for j := 0; j <= i; j++ {
			x, exact := entries[at(i, j)].down(cut)
			if !exact {
				x.lo++
			}
			s := times(int64(x.lo), int64(x.lo))
			if i != j {
				s = s.plus(s)
			}
			total = total.plus(s)
		}
	}
	root := new(big.Int).Sqrt(total.big())
	root.Add(root, big.NewInt(1))
	return root.Lsh(root, uint(cut))
}
