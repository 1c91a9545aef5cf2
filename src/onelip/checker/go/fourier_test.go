package main

import (
	"fmt"
	"math"
	"math/big"
	"testing"
)

// complexes is a complex number of fractions, cut to 200 bits after the point.
type complexes [2]*big.Rat

func cut(x *big.Rat) *big.Rat { return times2(new(big.Rat).SetInt(floor(times2(x, 200))), -200) }

func (a complexes) plus(b complexes) complexes {
	return complexes{new(big.Rat).Add(a[0], b[0]), new(big.Rat).Add(a[1], b[1])}
}

func (a complexes) times(b complexes) complexes {
	re := new(big.Rat).Sub(multiply(a[0], b[0]), multiply(a[1], b[1]))
	im := new(big.Rat).Add(multiply(a[0], b[1]), multiply(a[1], b[0]))
	return complexes{cut(re), cut(im)}
}

// unit is e^(2 pi i k / n): Newton's steps from a float64 number, z - z (z^n - 1) / n.
func unit(k, n int) complexes {
	at := [2]int{modulo(k, n), n}
	if z, known := units[at]; known {
		return z
	}
	im, re := math.Sincos(2 * math.Pi * float64(modulo(k, n)) / float64(n))
	z := complexes{exactly(re), exactly(im)}
	for step := 0; step < 3; step++ {
		power := complexes{whole(1), new(big.Rat)}
		for i := 0; i < n; i++ {
			power = power.times(z)
		}
		share := big.NewRat(-1, int64(n))
		wrong := complexes{multiply(share, new(big.Rat).Sub(power[0], whole(1))), multiply(share, power[1])}
		z = z.plus(z.times(wrong))
	}
	units[at] = z
	return z
}

var units = map[[2]int]complexes{}

// transformed is what the page says, number by number.
func transformed(w, x *tensor, outs, ins, height, width int) []*big.Rat {
	half := width/2 + 1
	angle := func(k, l, a, b int) complexes { return unit(k*a, height).times(unit(l*b, width)) }
	y := make([]*big.Rat, outs*height*width)
	for i := range y {
		y[i] = new(big.Rat)
	}
	for k := 0; k < height; k++ {
		for l := 0; l < half; l++ {
			spectrum := make([]complexes, ins)
			for i := range spectrum {
				spectrum[i] = complexes{new(big.Rat), new(big.Rat)}
				for p := 0; p < height*width; p++ {
					v := complexes{x.fraction(i*height*width + p), new(big.Rat)}
					spectrum[i] = spectrum[i].plus(v.times(angle(-k, -l, p/width, p%width)))
				}
			}
			for o := 0; o < outs; o++ {
				sum := complexes{new(big.Rat), new(big.Rat)}
				for i, v := range spectrum {
					n := 2 * (((k*half+l)*outs+o)*ins + i)
					sum = sum.plus(v.times(complexes{w.fraction(n), w.fraction(n + 1)}))
				}
				share := big.NewRat(2, int64(height*width))
				if l == 0 || 2*l == width {
					share.Quo(share, whole(2))
				}
				for p := 0; p < height*width; p++ {
					y[o*height*width+p].Add(y[o*height*width+p], multiply(share, angle(k, l, p/width, p%width).times(sum)[0]))
				}
			}
		}
	}
	return y
}

func readsFourier(w, bias *tensor, norm float64, input ...int) (f *fourier, ok bool) {
	b := &bundle{tensors: map[string]*tensor{"w": w, "b": bias}}
	r := record{"map": "fourier", "norm": fmt.Sprintf("%x", norm), "weight": "w", "bias": nil}
	if bias != nil {
		r["bias"] = "b"
	}
	ok = !refused(func() {
		m, _ := b.readMap(r, input, "it")
		f = m.(*fourier)
	})
	return f, ok
}

func TestFourierMapsAreWhatTheirFormulaIs(t *testing.T) {
	for _, s := range [][4]int{{1, 1, 1, 1}, {2, 1, 1, 2}, {1, 2, 4, 1}, {2, 2, 1, 5}, {1, 1, 2, 4}, {2, 3, 3, 2}, {3, 2, 3, 5}, {1, 1, 5, 6}} {
		outs, ins, height, width := s[0], s[1], s[2], s[3]
		count := 2 * height * (width/2 + 1) * outs * ins
		first, shift, x := normals(count), normals(outs), normals(ins*height*width)
		input, bias := doubles(x, ins, height, width), doubles(shift, outs)
		values := transformed(doubles(first, height, width/2+1, outs, ins, 2), input, outs, ins, height, width)
		for _, size := range []float64{1, 0x1p-400, 0x1p300} {
			w, total := make([]float64, count), 0.0
			for i := range w {
				total += first[i] * first[i]
				w[i] = first[i] * size
			}
			weight := doubles(w, height, width/2+1, outs, ins, 2)
			f, ok := readsFourier(weight, bias, math.Sqrt(total)*size*1.01, ins, height, width)
			if !ok {
				t.Fatal(s, "refused")
			}
			exact := make([]*big.Rat, len(values))
			for i, v := range values {
				exact[i] = new(big.Rat).Add(multiply(v, exactly(size)), bias.fraction(i/(height*width)))
			}
			y := f.apply(input.onGrid())
			covers(t, y, exact, "a Fourier map")
			if far, _ := y.off.f.Float64(); far > 0x1p-42*(size*total+1) {
				t.Error(s, "too rough:", far)
			}
			f.bias = nil
			for i, v := range values {
				exact[i] = multiply(v, exactly(size))
			}
			covers(t, f.apply(input.onGrid()), exact, "without a bias")
			// What the input is off by counts, by the norm.
			more := input.onGrid()
			more.off = more.off.plus(number(1))
			if f.apply(more).off.fraction().Cmp(f.norm) < 0 {
				t.Error(s, "an error of the input")
			}
		}
	}
}

func TestErrorsOfFourierMaps(t *testing.T) {
	// Roots whose sum is 0 are not quite: products and sums are exact here.
	for _, n := range []int{3, 5, 6, 7, 11, 24} {
		z := roots(n)
		m := make([]int64, 2*n)
		for i := 0; i < n; i++ {
			m[2*i] = lift / 2
		}
		sum := transform{rows: 1, cols: n, at: func(_, b int) turn { return z[b] }, size: 9, to: func(_, r int) int { return r }}
		covers(t, sum.of(grid{m, 0, nothing()}), []*big.Rat{new(big.Rat), new(big.Rat)}, "a sum of roots")
		if sum.of(grid{m, 0, number(1)}).off.f.Cmp(number(3).f) < 0 {
			t.Error("an error before a sum")
		}
	}
	for n := 1; n < 400; n++ {
		x := grid{[]int64{lift - int64(n)}, 0, nothing()}
		exact := multiply(whole(x.m[0]), big.NewRat(1, int64(n)))
		covers(t, shared(x, n), []*big.Rat{exact}, "a share")
		x.off = number(n)
		if shared(x, n).off.f.Cmp(number(1).f) < 0 {
			t.Error("an error before a share")
		}
	}
	// A wave across an odd width: a matrix that is off by 1 moves it by its length.
	w := doubles([]float64{1, 0, 1, 0, 1, 0}, 1, 3, 1, 1, 2)
	f, ok := readsFourier(w, nil, 1+0x1p-32, 1, 1, 5)
	wave := make([]float64, 5)
	for i := range wave {
		wave[i] = math.Cos(2 * math.Pi * float64(i) / 5)
	}
	x := doubles(wave, 5).onGrid()
	if !ok || f.multiplied(grid{make([]int64, 6), 0, number(1)}).off.fraction().Cmp(f.norm) < 0 {
		t.Error("an error before the matrices")
	}
	f.weight.off = number(1)
	off := f.apply(grid{x.m, x.e, nothing()}).off.fraction()
	length := lengthOf(x.m, x.e).fraction()
	if off.Cmp(multiply(length, exactly(1-0x1p-30))) < 0 || off.Cmp(multiply(length, exactly(1+0x1p-30))) > 0 {
		t.Error("an error of the matrices", off.FloatString(9), length.FloatString(9))
	}
	if f.weight.off = number(1).scaled(-20); f.below() {
		t.Error("a norm, without what the matrices are off by")
	}
}

// The largest matrix, which is 5 times a unitary one, stands at each frequency in turn.
func TestNormsOfFourierMapsAreThoseOfAllFrequencies(t *testing.T) {
	for _, s := range [][2]int{{1, 1}, {3, 4}, {4, 5}} {
		count := s[0] * (s[1]/2 + 1)
		for n := 0; n < count; n++ {
			w := make([]float64, 8*count)
			for i := range w {
				w[i] = float64(source.Intn(3) - 1)
			}
			copy(w[8*n:], []float64{0, 0, 3, 4, -5, 0, 0, 0})
			weight := doubles(w, s[0], s[1]/2+1, 2, 2, 2)
			for _, norm := range []float64{math.Nextafter(5, 0), 4.5, 3, 1, 0} {
				if _, ok := readsFourier(weight, nil, norm, 2, s[0], s[1]); ok {
					t.Error(s, n, norm, "shown")
				}
			}
			for _, norm := range []float64{5 * (1 + 0x1p-32), 6, 1e300} {
				if _, ok := readsFourier(weight, nil, norm, 2, s[0], s[1]); !ok {
					t.Error(s, n, norm, "not shown")
				}
			}
		}
	}
	for _, s := range [][2]int{{3, 4}, {4, 3}, {1, 6}, {6, 1}} {
		w := normals(8 * s[0] * s[1]) // four frequencies
		most := 0.0
		for n := 0; n < 4; n++ {
			size := 2 * s[0] * s[1]
			g := doubles(w[n*size:(n+1)*size], size).onGrid()
			a := complexMatrix(g.m, s[0], s[1], g.e)
			most = math.Max(most, longest(floatsOf(grid{a.m, a.e, nothing()}), a.rows, a.cols))
		}
		for norm, right := range map[float64]bool{most * (1 + 0x1p-32): true, most * (1 - 0x1p-32): false} {
			if _, ok := readsFourier(doubles(w, 2, 2, s[0], s[1], 2), nil, norm, s[1], 2, 2); ok != right {
				t.Error(s, norm, ok)
			}
		}
	}
}

// The map of opposite frequencies 1 and -1 is 0, as their mean is: the page asks for the largest matrix.
func TestOppositeFrequenciesAcrossHeight(t *testing.T) {
	w := doubles([]float64{0, 0, 1, 0, -1, 0}, 3, 1, 1, 1, 2)
	f, ok := readsFourier(w, nil, 1+0x1p-32, 1, 3, 1)
	if !ok {
		t.Fatal("refused")
	}
	covers(t, f.apply(doubles([]float64{1, 2, -4}, 3).onGrid()), []*big.Rat{new(big.Rat), new(big.Rat), new(big.Rat)}, "zero")
	if _, ok := readsFourier(w, nil, 0.99, 1, 3, 1); ok {
		t.Error("shown")
	}
}

func TestWhatNoFourierMapIs(t *testing.T) {
	zeros := func(shape ...int) *tensor {
		return doubles(make([]float64, entries(append([]int{1}, shape...), "")), shape...)
	}
	for _, c := range []struct {
		w     *tensor
		input []int
		right bool
	}{
		{zeros(3, 3, 2, 2, 2), []int{2, 3, 4}, true},
		{zeros(3, 3, 2, 2, 2), []int{2, 3, 5}, true},
		{zeros(3, 3, 2, 2, 2), []int{2, 3, 6}, false},
		{zeros(3, 3, 2, 2, 2), []int{2, 3, 3}, false},
		{zeros(3, 3, 2, 2, 2), []int{2, 4, 4}, false},
		{zeros(3, 3, 2, 2, 2), []int{3, 3, 4}, false},
		{zeros(3, 3, 2, 2, 2), []int{24}, false},
		{zeros(3, 3, 2, 2), []int{2, 3, 4}, false},
		{zeros(3, 3, 2, 2, 1), []int{2, 3, 4}, false},
		{zeros(3, 3, 2, 2, 2, 1), []int{2, 3, 4}, false},
		{integers(make([]int64, 72), 3, 3, 2, 2, 2), []int{2, 3, 4}, false},
		{&tensor{"F64", []int{3, 3, 0, 2, 2}, nil}, []int{2, 3, 4}, false},
		{zeros(1024, 1, 1, 1, 2), []int{1, 1024, 1}, true},
		{zeros(1025, 1, 1, 1, 2), []int{1, 1025, 1}, false},
		{zeros(1, 513, 1, 1, 2), []int{1, 1, 1025}, false},
	} {
		if _, ok := readsFourier(c.w, nil, 1, c.input...); ok != c.right {
			t.Error(c.w.shape, c.input, ok)
		}
	}
	for n := 1; n < 4; n++ {
		if _, ok := readsFourier(zeros(3, 3, 2, 2, 2), zeros(n), 1, 2, 3, 4); ok != (n == 2) {
			t.Error("a bias of", n)
		}
	}
	b := newBuilder(single())
	r := record{"map": "fourier", "norm": "0x1p+9", "weight": b.random(1, 1, 1, 1, 1, 2), "bias": nil}
	if !refused(func() { b.read(r, 1, 1, 1) }) {
		t.Error("level float knows it")
	}
}
