package main

import (
	"math"
	"math/big"
	"testing"
)

func normals(n int) []float64 {
	x := make([]float64, n)
	for i := range x {
		x[i] = source.NormFloat64()
	}
	return x
}

// longest is the norm of a matrix in floating point: the Gram matrix is squared until one of its
// singular values is left, however close the next one was.
func longest(a []float64, rows, cols int) float64 {
	gram := make([]float64, cols*cols)
	for i := 0; i < cols; i++ {
		for j := 0; j < cols; j++ {
			for k := 0; k < rows; k++ {
				gram[i*cols+j] += a[k*cols+i] * a[k*cols+j]
			}
		}
	}
	for step := 0; step < 40; step++ {
		peak := 0.0
		for _, v := range gram {
			peak = math.Max(peak, math.Abs(v))
		}
		if peak == 0 {
			return 0
		}
		square := make([]float64, cols*cols)
		for i := 0; i < cols; i++ {
			for k := 0; k < cols; k++ {
				v := gram[i*cols+k] / peak
				for j := 0; j < cols; j++ {
					square[i*cols+j] += v * (gram[k*cols+j] / peak)
				}
			}
		}
		gram = square
	}
	best := 0.0
	for j := 0; j < cols; j++ { // a column that is not 0 is the direction
		length, image := 0.0, 0.0
		for i := 0; i < cols; i++ {
			length += gram[i*cols+j] * gram[i*cols+j]
		}
		if length < 0x1p-60 {
			continue
		}
		for k := 0; k < rows; k++ {
			y := 0.0
			for i := 0; i < cols; i++ {
				y += a[k*cols+i] * gram[i*cols+j] / math.Sqrt(length)
			}
			image += y * y
		}
		best = math.Max(best, math.Sqrt(image))
	}
	return best
}

func exactly(x float64) *big.Rat { return new(big.Rat).SetFloat64(x) }

func TestNormsOfMatricesAreDecidedClosely(t *testing.T) {
	for _, shape := range [][2]int{{1, 1}, {1, 9}, {9, 1}, {5, 5}, {33, 40}, {70, 65}} {
		for _, size := range []float64{1, 0x1p-300, 0x1p300} {
			x := normals(shape[0] * shape[1])
			for i := range x {
				x[i] *= size
			}
			norm := longest(x, shape[0], shape[1])
			if size != 1 { // the squares leave floats
				y := make([]float64, len(x))
				for i := range x {
					y[i] = x[i] / size
				}
				norm = longest(y, shape[0], shape[1]) * size
			}
			g := doubles(x, len(x)).onGrid()
			a := matrix{shape[0], shape[1], g.m, g.e}
			if !a.below(exactly(norm*(1+0x1p-32)), g.off) || a.below(exactly(norm*(1-0x1p-32)), g.off) || !a.below(exactly(norm*3), g.off) || !a.below(exactly(norm*0x1p40), g.off) {
				t.Error(shape, size)
			}
			if a.below(exactly(norm*(1+0x1p-32)), g.off.plus(above(exactly(norm*0x1p-31)))) || a.below(exactly(0), g.off) {
				t.Error(shape, "an error that is not counted")
			}
		}
	}
	zero := matrix{2, 3, make([]int64, 6), 0}
	if !zero.below(new(big.Rat), nothing()) || zero.below(new(big.Rat), above(exactly(0x1p-60))) {
		t.Error("zero")
	}
}

func TestNormsOfBandsAndBlocks(t *testing.T) {
	const n = 90
	for band := 0; band < 4; band++ {
		x := make([]float64, n*n)
		for i := 0; i < n; i++ {
			for j := i - band; j <= i+band; j++ {
				if j >= 0 && j < n && j/30 == i/30 {
					x[i*n+j] = source.NormFloat64()
				}
			}
		}
		norm := longest(x, n, n)
		g := doubles(x, n*n).onGrid()
		a := matrix{n, n, g.m, g.e}
		if !a.below(exactly(norm*(1+0x1p-30)), g.off) || a.below(exactly(norm*(1-0x1p-30)), g.off) {
			t.Error(band)
		}
	}
}

// A factor from anywhere proves nothing: wrong ones have a residual.
func TestAWrongFactorIsRefused(t *testing.T) {
	g := doubles(normals(100), 100).onGrid()
	a := matrix{10, 10, g.m, g.e}
	limit := widest(floor(times2(exactly(10000), -2*a.e)))
	for n := 0; n < 55; n++ {
		gram := newGram(a)
		if !gram.subtractFrom(limit) {
			t.Fatal("no factor")
		}
		gram.factor[n] += gram.factor[0] * 0x1p-20
		slack, _ := limit.down(36)
		if rest, ok := gram.residual(limit); ok && rest.Cmp(slack.big()) <= 0 {
			t.Error(n)
		}
	}
}

// layer is a convolution with random whole numbers, so that all is exact.
func layer(out, in, k, m, groups int, from [3]int, stride, pad, gap [2]int, circular bool) *convolution {
	b := &bundle{tensors: map[string]*tensor{}}
	w := make([]float64, out*in/groups*k*m)
	for i := range w {
		w[i] = float64(integral(3))
	}
	b.tensors["w"] = doubles(w, out, in/groups, k, m)
	number := func(n int) digits { return digits(big.NewInt(int64(n)).String()) }
	two := func(p [2]int) []any { return []any{number(p[0]), number(p[1])} }
	return b.newConvolution(record{"map": "convolution", "norm": "0x1p0", "weight": "w", "bias": nil, "stride": two(stride), "padding": two(pad), "dilation": two(gap),
		"groups": number(groups), "circular": circular, "witness": "matrix"}, from[:], "it")
}

// full is the map as a matrix of whole numbers, by the definition of a correlation.
func full(c *convolution) ([]float64, int, int) {
	rows, cols := c.to[0]*c.to[1]*c.to[2], c.from[0]*c.from[1]*c.from[2]
	a := make([]float64, rows*cols)
	outs := c.wide[0] / c.groups
	for o := 0; o < c.to[0]; o++ {
		for y := 0; y < c.to[1]; y++ {
			for x := 0; x < c.to[2]; x++ {
				for i := 0; i < c.wide[1]; i++ {
					for s := 0; s < c.wide[2]; s++ {
						for u := 0; u < c.wide[3]; u++ {
							p, q := y*c.stride[0]+s*c.gap[0]-c.pad[0], x*c.stride[1]+u*c.gap[1]-c.pad[1]
							if c.circular {
								p, q = modulo(p, c.from[1]), modulo(q, c.from[2])
							} else if p < 0 || q < 0 || p >= c.from[1] || q >= c.from[2] {
								continue
							}
							w := float64(c.weight.m[((o*c.wide[1]+i)*c.wide[2]+s)*c.wide[3]+u])
							a[((o*c.to[1]+y)*c.to[2]+x)*cols+((o/outs*c.wide[1]+i)*c.from[1]+p)*c.from[2]+q] += math.Ldexp(w, c.weight.e)
						}
					}
				}
			}
		}
	}
	return a, rows, cols
}

func layers() []*convolution {
	one := [2]int{1, 1}
	return []*convolution{
		layer(3, 2, 3, 3, 1, [3]int{2, 5, 4}, one, one, one, false),
		layer(3, 2, 3, 3, 1, [3]int{2, 5, 4}, one, one, one, true),
		layer(4, 6, 3, 2, 2, [3]int{6, 6, 5}, [2]int{2, 1}, [2]int{1, 0}, [2]int{1, 2}, false),
		layer(4, 2, 3, 3, 2, [3]int{2, 6, 4}, [2]int{2, 2}, one, one, true),
		layer(2, 1, 3, 3, 1, [3]int{1, 4, 4}, one, [2]int{4, 3}, one, true),
		layer(2, 1, 5, 5, 1, [3]int{1, 3, 3}, [2]int{2, 1}, [2]int{3, 2}, one, false),
		layer(2, 2, 1, 1, 1, [3]int{2, 7, 3}, [2]int{3, 2}, [2]int{0, 0}, one, false),
		layer(2, 2, 3, 3, 1, [3]int{2, 7, 7}, [2]int{4, 4}, [2]int{0, 1}, [2]int{2, 3}, false),
	}
}

func TestConvolutionsAreWhatTheirMatricesAre(t *testing.T) {
	for n, c := range layers() {
		a, rows, cols := full(c)
		v := &convolved{proved: proved{norm: exactly(1000), shape: c.to[:]}, c: c}
		x, y := make([]int64, cols), make([]int64, rows)
		for i := range x {
			x[i] = integral(9)
		}
		for i := range y {
			y[i] = integral(9)
		}
		forward, back := make([]*big.Rat, rows), make([]*big.Rat, cols)
		for i := range forward {
			s := 0.0
			for j := range x {
				s += a[i*cols+j] * float64(x[j])
			}
			forward[i] = exactly(s)
		}
		for j := range back {
			s := 0.0
			for i := range y {
				s += a[i*cols+j] * float64(y[i])
			}
			back[j] = exactly(s)
		}
		if g := v.apply(grid{x, 0, nothing()}); distance2(g, forward).Sign() != 0 {
			t.Error(n, "forward")
		}
		if g := v.transposed(grid{y, 0, nothing()}); distance2(g, back).Sign() != 0 {
			t.Error(n, "back")
		}
	}
}

func TestWitnessesAreAboveTheNorm(t *testing.T) {
	for n, c := range layers() {
		a, rows, cols := full(c)
		norm := longest(a, rows, cols)
		for _, witness := range []string{"matrix", "torus", "kernel"} {
			c.witness = witness
			shown := func(norm float64) bool {
				c.norm = exactly(norm)
				return !refused(func() { c.prove("it") })
			}
			if shown(norm * (1 - 0x1p-30)) {
				t.Error(n, witness, "a norm that is too small")
			}
			if witness == "matrix" && !shown(norm*(1+0x1p-30)) {
				t.Error(n, "the norm itself")
			}
			if wide := n == 4 && witness == "torus"; shown(norm*10) == wide { // there are more places than pixels
				t.Error(n, witness, "ten times the norm")
			}
		}
	}
	// On the torus itself nothing is lost.
	c := layers()[1]
	a, rows, cols := full(c)
	c.witness, c.norm = "torus", exactly(longest(a, rows, cols)*(1+0x1p-30))
	c.prove("it")
}

func TestSeries(t *testing.T) {
	modulus := func(y float64, n int) float64 {
		re, im, term := 0.0, 0.0, 1.0
		for k := 0; k < n; k++ {
			sign := 1 - 2*float64(k/2%2)
			if k%2 == 0 {
				re += sign * term
			} else {
				im += sign * term
			}
			term *= y / float64(k+1)
		}
		return math.Hypot(re, im)
	}
	for n := 1; n < 20; n++ {
		for _, c := range []float64{0, 0.3, 1, 2.5, 4, 9} {
			most := 0.0
			for k := 0; k <= 2000; k++ {
				most = math.Max(most, modulus(c*float64(k)/2000, n))
			}
			if !seriesBelow(exactly(c), n, exactly(most*1.0001)) || seriesBelow(exactly(c), n, exactly(most*0.9999)) {
				t.Error(n, c, most)
			}
		}
	}
	// 5, 9 and 13 terms stretch nothing at all up to some length, 6 always do.
	if !seriesBelow(exactly(1), 5, whole(1)) || !seriesBelow(exactly(2), 9, whole(1)) || !seriesBelow(exactly(2), 13, whole(1)) || seriesBelow(exactly(0.5), 6, whole(1)) {
		t.Error("exactly 1")
	}
}

func TestABoundAboveItsErrors(t *testing.T) {
	// Wild numbers through a matrix with a bias: as near as it says.
	for n := 0; n < 100; n++ {
		rows, cols := 1+source.Intn(5), 1+source.Intn(5)
		w, bias, x := make([]float64, rows*cols), make([]float64, rows), make([]float64, cols)
		for i := range w {
			w[i] = wild()
		}
		for i := range bias {
			bias[i] = wild()
		}
		for i := range x {
			x[i] = wild()
		}
		weight, shift, input := doubles(w, rows, cols), doubles(bias, rows), doubles(x, cols)
		g := weight.onGrid()
		d := &dense{proved: proved{lengthOf(g.m, g.e).plus(g.off).fraction(), []int{rows}}, a: matrix{rows, cols, g.m, g.e}, off: g.off, bias: shift}
		exact := fractions(shift)
		for i := range exact {
			for j := 0; j < cols; j++ {
				exact[i].Add(exact[i], multiply(weight.fraction(i*cols+j), input.fraction(j)))
			}
		}
		covers(t, d.apply(input.onGrid()), exact, "a matrix")
	}
}

func TestStridesWhoseProductIsTooLarge(t *testing.T) {
	c := layer(2, 1<<14, 1, 2, 1, [3]int{1 << 14, 1, 2}, [2]int{1 << 25, 1<<25 + 2}, [2]int{0, 0}, [2]int{1, 1}, false)
	c.witness, c.norm = "torus", exactly(1e9)
	if !refused(func() { c.prove("it") }) {
		t.Error("shown")
	}
}

func TestTapsThatMeetNoPixelDoNotCount(t *testing.T) {
	b := &bundle{tensors: map[string]*tensor{"w": doubles([]float64{1e30, 0, 0.1}, 1, 1, 1, 3)}}
	two := []any{digits("1"), digits("1")}
	read := func(w []float64, norm string) *convolution {
		b.tensors["w"] = doubles(w, 1, 1, 1, len(w))
		return b.newConvolution(record{"map": "convolution", "norm": norm, "weight": "w", "bias": nil, "stride": two, "padding": []any{digits("0"), digits("2")},
			"dilation": []any{digits("1"), digits("2")}, "groups": digits("1"), "circular": false, "witness": "matrix"}, []int{1, 1, 2}, "it")
	}
	read([]float64{1e30, 0, 0.1}, "0x0p+0").prove("it") // looks 2 to the left and to the right of 2 pixels
	read([]float64{1e30, 0.1, 7}, "0x1.9999999bp-4").prove("it")
	if !refused(func() { read([]float64{1e30, 0.1, 7}, "0x1.9999999999999p-4").prove("it") }) {
		t.Error("shown")
	}
}

func TestAnIndexIsOfWholeNumbers(t *testing.T) {
	read := func(index *tensor) bool {
		b := &bundle{tensors: map[string]*tensor{"i": index}}
		return !refused(func() {
			b.readTake(record{"map": "take", "norm": "0x1p+0", "index": "i", "outputs": []any{digits("2")}}, []int{2}, "it")
		})
	}
	if !read(integers([]int64{1, 0}, 2)) || !read(&tensor{"U8", []int{2}, []byte{1, 0}}) || read(doubles([]float64{1, 0}, 2)) {
		t.Error("an index")
	}
}
