package main

import "math/big"

// bent is a matrix and a function with second derivatives, in front of the last map.
type bent struct {
	matrix *dense
	curve  *curve
}

// bentBlock is a map and an activation as that, or nil.
func bentBlock(m linear, a *activation) *bent {
	d, ok := m.(*dense)
	if !ok || a.curve == nil || a.curve.slope == nil {
		return nil
	}
	return &bent{d, a.curve}
}

// curvature is a head V phi(U z + b) + c in which f_i - f_j lies above parabolas.
type curvature struct {
	before []block
	inner  *bent
	outer  *dense
	bends  *tensor
	reach  *big.Rat // how much a step of the input is in z, at most
}

// readCurvature shows the curvature of all pairs that samples ask for.
func (b *bundle) readCurvature(v any, outputs int, asked [][2]int) *curvature {
	const what = "the head"
	f := fields(v, what, "kind", "bends")
	demand(f["kind"] == "curvature", "%s is of an unknown kind", what)
	demand(len(b.blocks) > 0 && len(b.last) == 1, "%s: not a block and one matrix at the end", what)
	count := len(b.blocks) - 1
	h := &curvature{before: b.blocks[:count], inner: b.blocks[count].bent, bends: b.numbers(f["bends"], what), reach: whole(1)}
	demand(h.inner != nil, "%s: the last block is not one matrix and softplus, tanh or sigmoid", what)
	var ok bool
	h.outer, ok = b.last[0].(*dense)
	demand(ok, "%s: the network does not end in one matrix", what)
	for _, part := range h.before {
		h.reach = multiply(h.reach, part.bound)
	}
	demand(tuple(h.bends.shape) == tuple([]int{outputs, outputs}), "%s: not a number for each pair of outputs", what)
	least, _ := h.bends.extremes()
	demand(least.Sign() >= 0, "%s: a bend is negative", what)
	parallel(len(asked), func(k int) {
		i, j := asked[k][0], asked[k][1]
		demand(h.bendIs(i, j), "%s: the curvature of outputs %d and %d is not shown", what, i, j)
	})
	b.say("%s: %d curvatures, matrix", what, len(asked))
	return h
}

func (h *curvature) bend(i, j int) *big.Rat { return h.bends.fraction(i*h.outer.a.rows + j) }

// bendIs says whether the squared norm of diag(a) U is at most the number for outputs i and j.
func (h *curvature) bendIs(i, j int) bool {
	a, off := h.weighted(i, j)
	return a.below(rootDown(h.bend(i, j)), off)
}

// weighted is diag(a) U on a grid that fits, with a rounded upwards: the norm grows with each of its numbers.
func (h *curvature) weighted(i, j int) (matrix, upper) {
	u := h.inner.matrix.weight
	rows, cols := u.shape[0], u.shape[1]
	length, e := make([]int64, rows), make([]int, rows)
	top := lowest
	for k := range length {
		length[k], e[k] = h.weight(i, j, k)
		for c := 0; c < cols && length[k] != 0; c++ {
			if m, shift := u.at(k*cols + c); m != 0 {
				top = most(top, times(length[k], m).length()+e[k]+shift)
			}
		}
	}
	a := matrix{rows, cols, make([]int64, rows*cols), 0}
	if top == lowest {
		return a, nothing()
	}
	a.e = top - precise
	inexact := 0
	for k := range length {
		for c := 0; c < cols && length[k] != 0; c++ {
			m, shift := u.at(k*cols + c)
			v, exact := times(length[k], m).nearest(a.e - e[k] - shift)
			a.m[k*cols+c] = v
			if !exact {
				inexact++
			}
		}
	}
	return a, rounding(inexact, a.e)
}

// weight is the number a_k of outputs i and j as m 2^e, rounded upwards; m is at most 2^61.
//
// Its square is |d_k| times the largest second derivative where d_k = v_ik - v_jk is negative, and |d_k| times the
// negative of the smallest one where it is positive.
func (h *curvature) weight(i, j, k int) (int64, int) {
	v, curve := h.outer.weight, h.inner.curve
	p, q := v.fraction(i*v.shape[1]+k), v.fraction(j*v.shape[1]+k)
	d := p.Sub(p, q)
	if d.Sign() == 0 || d.Sign() > 0 && curve.flat {
		return 0, 0
	}
	square := multiply(d.Abs(d), curve.bend)
	// In [2^(n - 1), 2^(n + 1)), so that the root of it times 2^-2s is below 2^61.
	n := square.Num().BitLen() - square.Denom().BitLen()
	s := (n+1)>>1 - 60
	x := floor(times2(square, -2*s))
	root := x.Sqrt(x)
	return root.Int64() + 1, s
}

// rootDown is a lower bound of a root, near by a factor of 1 + 2^-99.
func rootDown(a *big.Rat) *big.Rat {
	if a.Sign() == 0 {
		return new(big.Rat)
	}
	s := (a.Num().BitLen()-a.Denom().BitLen())>>1 - 100
	x := floor(times2(a, -2*s))
	return times2(new(big.Rat).SetInt(x.Sqrt(x)), s)
}

// shows says whether no other output is as large as one, within a distance of a sample.
func (h *curvature) shows(x grid, own int, radius *big.Rat) bool {
	for _, part := range h.before {
		x = part.apply(x)
	}
	u, v := h.inner.matrix, h.outer
	hidden := u.apply(x)
	y := v.apply(h.inner.curve.applied(hidden))
	slopes := h.inner.curve.slopes(hidden)
	slack := y.off.times(rootOfWhole(2)).fraction()
	p := multiply(radius, h.reach)
	for j := 0; j < v.a.rows; j++ {
		if j == own {
			continue
		}
		rest := times2(whole(y.m[own]-y.m[j]), y.e)
		rest.Sub(rest, slack)
		rest.Sub(rest, multiply(h.steepness(slopes, own, j), p))
		bent := multiply(h.bend(own, j), multiply(p, p))
		rest.Sub(rest, bent.Quo(bent, whole(2)))
		if rest.Sign() <= 0 {
			return false
		}
	}
	return true
}

// steepness is an upper bound of the length of the gradient U^T (slopes * d) of f_i - f_j, d = v_i - v_j.
func (h *curvature) steepness(slopes grid, i, j int) *big.Rat {
	d, peak := h.difference(i, j)
	index := make([]int32, len(d.m))
	for k := range index {
		index[k] = int32(k)
	}
	c := scaledBy(slopes, d, index)
	c.off = c.off.plus(peak.times(slopes.off))
	g := h.inner.matrix.transposed(c)
	return lengthOf(g.m, g.e).plus(g.off).fraction()
}

// difference is v_i - v_j on a grid, and an upper bound of its largest entry.
func (h *curvature) difference(i, j int) (grid, upper) {
	v := h.outer
	p, q := v.a.m[i*v.a.cols:(i+1)*v.a.cols], v.a.m[j*v.a.cols:(j+1)*v.a.cols]
	sums := make([]wide, len(p))
	for k := range p {
		sums[k] = widen(p[k] - q[k])
	}
	d := settled(sums, v.a.e)
	d.off = d.off.plus(v.off.times(rootOfWhole(2)))
	peak := int64(0)
	for _, m := range d.m {
		if magnitude(m) > peak {
			peak = magnitude(m)
		}
	}
	return d, above(times2(whole(peak), d.e)).plus(d.off)
}
