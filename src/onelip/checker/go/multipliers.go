package main

import "math/big"

// A method that shows a constant of a plain dense network below the product: the form
//
//	c^2 |d_0|^2 - |W_L d_(L-1)|^2 - 2 sum_k (d_k - a W_k d_(k-1))^T T_k (b W_k d_(k-1) - d_k)
//
// has no negative values. Any T >= 0 and any slopes that lie around the true ones are as good for a proof, so they
// are taken with few bits. What is left is a symmetric matrix of whole numbers, scaled by powers of two to a
// diagonal up to 1, that is shown to have no negative eigenvalue; a sum of errors is taken off before.

const (
	formBits   = 100 // bits after the point of the scaled form
	formRoom   = 38  // 2^-38 is what rounding may be, all together
	slopeBits  = 12
	timesBits  = 12
	one        = 1 << slopeBits
	steepest   = 1 << 18
	widestForm = 1 << 12
)

// plainBlock is what the method knows of a block.
type plainBlock struct {
	w           *dense
	low, high   []int64 // slopes in units of 2^-12, outwards; the extremes of all units
	lows, highs []int64 // of each unit
	t           []int64 // multipliers t 2^e
	e           []int
}

// readMethod shows that the bound of the network holds, by its method.
func (b *bundle) readMethod(v any, bound *big.Rat) {
	const what = "the method"
	f := fields(v, what, "kind", "weights")
	demand(text(f["kind"], what) == "multipliers", "%s is of an unknown kind", what)
	names := list(f["weights"], what)
	demand(len(names) == len(b.blocks) && len(names) > 0 && len(b.last) == 1, "%s: the network is not of its kind", what)
	head, ok := b.last[0].(*dense)
	demand(ok, "%s: the network does not end in a matrix", what)
	layers := make([]*plainBlock, len(names))
	total := head.a.cols
	for k, name := range names {
		p := b.blocks[k].plain
		demand(p != nil, "%s: block %d is not of its kind", what, k)
		t := b.tensor(name, what)
		rows := p.w.a.rows
		demand(len(t.shape) == 1 && t.length() == rows, "%s: not a number for each row", what)
		for i := 0; i < rows; i++ {
			m, e := t.at(i)
			demand(m >= 0, "%s: a multiplier below 0", what)
			if cut := reach(m, 0) - timesBits; cut > 0 {
				m, e = m>>uint(cut), e+cut
			}
			p.t, p.e = append(p.t, m), append(p.e, e)
		}
		layers[k] = p
		total += p.w.a.cols
	}
	demand(total <= widestForm, "%s: more than %d numbers", what, widestForm)
	if !newForm(layers, head, bound).holds() { // with slopes of a layer, or of each unit: both are proofs
		for _, p := range layers {
			p.low, p.high = p.lows, p.highs
		}
		demand(newForm(layers, head, bound).holds(), "%s does not show the bound", what)
	}
}

// plainOf is a block as the method knows it, or nil.
func plainOf(inner []linear, a *activation, outer []linear, skip bool) *plainBlock {
	if len(inner) != 1 || len(outer) != 0 || skip || a.slopes == nil {
		return nil
	}
	w, ok := inner[0].(*dense)
	if !ok {
		return nil
	}
	p := &plainBlock{w: w}
	all := [2]int64{one, one}
	for _, i := range a.at.places() {
		slope := times2(a.slopes.fraction(i), slopeBits)
		low, high := floor(slope), floor(new(big.Rat).Neg(slope))
		high.Neg(high)
		if low.Cmp(big.NewInt(-steepest)) < 0 || high.Cmp(big.NewInt(steepest)) > 0 {
			return nil
		}
		own := [2]int64{one, one}
		if low.Int64() < one {
			own[0] = low.Int64()
		}
		if high.Int64() > one {
			own[1] = high.Int64()
		}
		if own[0] < all[0] {
			all[0] = own[0]
		}
		if own[1] > all[1] {
			all[1] = own[1]
		}
		p.lows, p.highs = append(p.lows, own[0]), append(p.highs, own[1])
	}
	for range p.lows {
		p.low, p.high = append(p.low, all[0]), append(p.high, all[1])
	}
	return p
}

// scaledWide is a number m 2^e.
type scaledWide struct {
	m wide
	e int
}

// form is the lower triangle of the matrix as sums of scaled numbers, and what they are off by.
type form struct {
	n       int
	first   []int // row i is zero before this column
	entries [][]scaledWide
	corners []corner
}

// corner is an error of Frobenius norm off, at rows and columns of a form: twice where they differ.
type corner struct {
	rows, cols [2]int
	off        upper
}

func (f *form) add(i, j int, m wide, e int) {
	if m != (wide{}) {
		f.entries[at(i, j)] = append(f.entries[at(i, j)], scaledWide{m, e})
	}
}

// newForm writes the form for c = bound.
func newForm(layers []*plainBlock, head *dense, bound *big.Rat) *form {
	f := &form{}
	starts := []int{0}
	for _, p := range layers {
		starts = append(starts, starts[len(starts)-1]+p.w.a.cols)
	}
	f.n = starts[len(starts)-1] + head.a.cols
	f.entries = make([][]scaledWide, at(f.n, 0))
	c, e := dyadic(bound)
	for i := 0; i < layers[0].w.a.cols; i++ {
		f.add(i, i, times(c, c), 2*e)
	}
	for k, p := range layers {
		f.addLayer(p, starts[k], starts[k+1])
	}
	f.addSquares(head.a, head.a.m, head.a.e, starts[len(layers)], -1, head.off, head.off)
	return f
}

// addLayer adds 2 T at d_k, -T (a + b) W between d_k and d_(k-1), and 2 W^T a b T W at d_(k-1).
func (f *form) addLayer(p *plainBlock, before, here int) {
	a := p.w.a
	scaled := make([]wide, len(a.m)) // 2 a b T W, all with the exponent of the largest T
	low := lowest
	for i := range p.t {
		if p.t[i] != 0 && p.e[i] > low {
			low = p.e[i]
		}
	}
	steep, curved := nothing(), nothing()
	inexact := 0
	for i := 0; i < a.rows; i++ {
		f.add(here+i, here+i, widen(2*p.t[i]), p.e[i])
		sum, product := p.t[i]*(p.low[i]+p.high[i]), p.low[i]*p.high[i]
		steep = highest(steep, above(times2(whole(magnitude(sum)), p.e[i]-slopeBits)))
		curved = highest(curved, above(times2(multiply(whole(2*magnitude(product)), whole(p.t[i])), p.e[i]-2*slopeBits)))
		for j := 0; j < a.cols; j++ {
			w := a.m[i*a.cols+j]
			f.add(here+i, before+j, wide{}.minus(times(sum, w)), p.e[i]-slopeBits+a.e)
			if p.t[i] == 0 || product == 0 || w == 0 {
				continue
			}
			// 24 + 1 + 36 bits and 50
			x, exact := times(2*p.t[i]*product, w).truncated(low - p.e[i])
			scaled[i*a.cols+j] = x
			if !exact {
				inexact++
			}
		}
	}
	f.corners = append(f.corners, corner{[2]int{here, here + a.rows}, [2]int{before, before + a.cols}, steep.times(p.w.off)})
	if low == lowest {
		return
	}
	g := settled(scaled, low-2*slopeBits+a.e)
	g.off = g.off.plus(rounding(inexact, low-2*slopeBits+a.e+1))
	// what W is off by counts once more in the scaled one
	f.addSquares(a, g.m, g.e, before, 1, p.w.off, g.off.plus(curved.times(p.w.off)))
}

// addSquares adds sign A^T B at a corner, for B = D A with a diagonal D.
func (f *form) addSquares(a matrix, b []int64, e, start int, sign int64, offA, offB upper) {
	x, y := make([]int64, len(b)), make([]int64, len(b))
	for i := 0; i < a.rows; i++ {
		for j := 0; j < a.cols; j++ {
			x[j*a.rows+i], y[j*a.rows+i] = a.m[i*a.cols+j], sign*b[i*a.cols+j]
		}
	}
	if squares(y) != (wide{}) {
		r, sumsX := raisedRows(x, a.rows)
		s, sumsY := raisedRows(y, a.rows)
		for i := 0; i < a.cols; i++ {
			for j := 0; j <= i; j++ {
				total := dot(r[i*a.rows:(i+1)*a.rows], s[j*a.rows:(j+1)*a.rows])
				f.add(start+i, start+j, lowered(total, a.rows, sumsX[i], sumsY[j]), a.e+e)
			}
		}
	}
	// (A + E)^T (B + F) - A^T B, once more for the half that is mirrored
	lengthA, lengthB := lengthOf(a.m, a.e), lengthOf(b, e)
	off := lengthA.times(offB).plus(lengthB.times(offA)).plus(offA.times(offB))
	where := [2]int{start, start + a.cols}
	f.corners = append(f.corners, corner{where, where, off})
}

// holds says whether the form is shown to have no negative values.
func (f *form) holds() bool {
	// The diagonal becomes at most 1 by 2^-half on both sides.
	half := make([]int, f.n)
	for i := range half {
		total := new(big.Rat)
		for _, x := range f.entries[at(i, i)] {
			total.Add(total, times2(new(big.Rat).SetInt(x.m.big()), x.e))
		}
		if total.Sign() <= 0 {
			return false
		}
		size := total.Num().BitLen() - total.Denom().BitLen() + 1 // total < 2^size
		half[i] = (size + 1) >> 1                                 // rounded upwards
	}
	unit := widen(1).up(formBits)
	g := &gram{n: f.n, exact: make([]wide, at(f.n, 0)), first: make([]int, f.n)}
	inexact := 0
	for i := 0; i < f.n; i++ {
		for j := 0; j <= i; j++ {
			var total wide
			for _, x := range f.entries[at(i, j)] {
				shift := x.e - half[i] - half[j] + formBits
				if x.m.length()+shift > 120 {
					return false // far above the diagonal
				}
				if shift >= 0 {
					total = total.plus(x.m.up(shift))
				} else {
					d, exact := x.m.truncated(-shift)
					total = total.plus(d)
					if !exact {
						inexact++
					}
				}
			}
			g.exact[at(i, j)] = wide{}.minus(total)
		}
		g.exact[at(i, i)] = g.exact[at(i, i)].plus(unit)
		for g.first[i] < i && g.exact[at(i, g.first[i])] == (wide{}) {
			g.first[i]++
		}
	}
	// Each number off by a unit, and mirrored.
	off := rootOfWhole(2).times(rounding(inexact, 1-formBits))
	for _, c := range f.corners {
		off = off.plus(c.off.times(rootOfWhole(2)).scaled(-smallest(half[c.rows[0]:c.rows[1]]) - smallest(half[c.cols[0]:c.cols[1]])))
	}
	room := widen(1).up(formBits - formRoom)
	t := unit.minus(room)
	if !g.subtractFrom(t) {
		return false
	}
	rest, ok := g.residual(t)
	if !ok {
		return false
	}
	all := new(big.Rat).SetInt(rest)
	all.Add(all, times2(off.fraction(), formBits))
	return all.Cmp(new(big.Rat).SetInt(room.big())) <= 0
}

func smallest(a []int) int {
	s := a[0]
	for _, x := range a {
		s = least(s, x)
	}
	return s
}
