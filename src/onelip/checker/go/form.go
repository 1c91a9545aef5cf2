package main

import "math/big"

// form is the quadratic form of docs/proof-format.md, section "Methods": for matrices W_1 ... W_L, multipliers T_k
// and slopes between s_k and 1,
//
//	c^2 |d_0|^2 - |W_L d_(L-1)|^2 + 2 sum_k (d_k^T T_k d_k + u_k^T s_k T_k u_k - d_k^T (1 + s_k) T_k u_k), u_k = W_k d_(k-1).
//
// Its matrix is block tridiagonal: below the diagonal -(1 + s_k) T_k W_k, on it c^2 or 2 T_k, plus
// 2 W^T s T W for the matrix that follows, or -W^T W for the last.
type form struct {
	c          *big.Rat
	matrices   []*tensor
	conditions [][]condition // for all matrices but the last
	diagonal   bool          // whether the block of d_0 is a multiple of the identity: slopes of 0
}

const (
	unitBits    = 116 // numbers of the scaled matrix are whole in units of 2^-116
	mostEntries = 1 << 25
)

// show demands that the form has no negative values.
func (f *form) show(what string) {
	a, _, off := f.scaled(what)
	demand(a.positive(off), "%s: the form is not shown to have no negative values", what)
}

// scaled is the form's matrix M with diagonals between 1 and 4: entry (i, j) times 2^(scale[i] + scale[j]); in units
// it is off by no more than off, in Frobenius' norm. Where nothing depends on d_i, there is a 1 on the diagonal instead of 0.
func (f *form) scaled(what string) (a *envelope, scale []int, off upper) {
	f.diagonal = true
	for _, q := range f.factors(0).q {
		f.diagonal = f.diagonal && q == 0
	}
	block, start := f.blocks(what)
	size := len(block)
	parts := make([]*weighted, len(f.matrices))
	diagonal := make([]wide, size)
	scale = make([]int, size)
	off = above(whole(int64(size))) // each entry by less than a unit
	for k, w := range f.matrices {
		parts[k] = newWeighted(w, f.factors(k))
		for i := start[k]; i < start[k+1]; i++ {
			demand(f.scaledDiagonal(parts[k], k, i-start[k], &scale[i], &diagonal[i]), "%s: the form has negative values", what)
		}
		off = off.plus(parts[k].error(scale[start[k]:start[k+1]]).scaled(unitBits))
	}
	a = newEnvelope(size, func(i int) int { return f.first(block, start, i) })
	fits := a.fill(func(i, j int) (wide, bool) {
		k := block[i]
		shift := scale[i] + scale[j] + unitBits
		if i == j {
			return diagonal[i], true
		}
		if j < start[k] {
			x, e := f.cross(k, i-start[k], j-start[k-1])
			return x.moved(e + shift)
		}
		p, q := i-start[k], j-start[k]
		return parts[k].entry(p, q).moved(parts[k].unit[p] + parts[k].unit[q] + shift)
	})
	demand(fits, "%s: the form has negative values", what)
	return a, scale, off
}

// blocks says which d_k each row belongs to, and where each d_k starts.
func (f *form) blocks(what string) (block, start []int) {
	area := 0
	for k, w := range f.matrices {
		start = append(start, len(block))
		demand(w.shape[1] <= mostEntries, "%s: too large a form", what)
		for i := 0; i < w.shape[1]; i++ {
			block = append(block, k)
			area += len(block) - f.first(block, start, len(block)-1)
			demand(area <= mostEntries, "%s: too large a form", what)
		}
	}
	return block, append(start, len(block))
}

// first is where row i begins.
func (f *form) first(block, start []int, i int) int {
	if k := block[i]; k > 0 {
		return start[k-1]
	}
	if f.diagonal {
		return i
	}
	return 0
}

// cross is entry (i, j) of -(1 + s) T W between d_k and d_(k-1), as a number times 2^e.
func (f *form) cross(k, i, j int) (triple, int) {
	s := f.conditions[k-1][i]
	m, e := f.matrices[k-1].at(i*f.matrices[k-1].shape[1] + j)
	return times(-(1<<uint(s.places)+s.slope)*s.count, m).triple(), e + s.e - s.places
}

// factors are those of the rows of a matrix in its product with itself: 2 s T, or -1 for the last.
func (f *form) factors(k int) dyadics {
	rows := f.matrices[k].shape[0]
	d := dyadics{make([]int64, rows), make([]int, rows)}
	for r := range d.q {
		d.q[r] = -1
		if k < len(f.conditions) {
			s := f.conditions[k][r]
			d.q[r], d.e[r] = s.count*s.slope, s.e+1-s.places
		}
	}
	return d
}

// scaledDiagonal finds the power of 2 that makes entry i of block k of the diagonal at least 1 and less than 4.
func (f *form) scaledDiagonal(part *weighted, k, i int, scale *int, scaled *wide) bool {
	x := multiply(f.c, f.c)
	if k > 0 {
		s := f.conditions[k-1][i]
		x = times2(whole(s.count), s.e+1)
	}
	if x.Sign() == 0 && f.unseen(k, i) {
		*scaled = widen(1).up(unitBits) // a row of zeros may have any number on its diagonal
		return true
	}
	x.Add(x, times2(new(big.Rat).SetInt(part.entry(i, i).big()), 2*part.unit[i]))
	if x.Sign() <= 0 {
		return false
	}
	n := x.Num().BitLen() - x.Denom().BitLen() // x is in [2^n, 2^(n+1)): the denominator is a power of 2
	*scale = -(n >> 1)
	*scaled = widest(floor(times2(x, 2**scale+unitBits)))
	return true
}

// unseen says whether nothing that counts looks at entry i of d_k.
func (f *form) unseen(k, i int) bool {
	w := f.matrices[k]
	for r := 0; r < w.shape[0]; r++ {
		m, _ := w.at(r*w.shape[1] + i)
		if m != 0 && (k == len(f.conditions) || f.conditions[k][r].count != 0) {
			return false
		}
	}
	return true
}
