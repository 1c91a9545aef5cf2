package main

import (
	"math"
	"testing"
)

// positive says whether a symmetric matrix has a Cholesky factor in floating point.
func positive(a [][]float64) bool {
	l := make([][]float64, len(a))
	for i := range a {
		l[i] = make([]float64, len(a))
		for j := 0; j <= i; j++ {
			s := a[i][j]
			for k := 0; k < j; k++ {
				s -= l[i][k] * l[j][k]
			}
			if i == j {
				if s <= 0 {
					return false
				}
				l[i][i] = math.Sqrt(s)
			} else {
				l[i][j] = s / l[j][j]
			}
		}
	}
	return true
}

// formValue is the form of the page at d, in floating point.
func formValue(c float64, w [][]float64, sizes []int, low, high []float64, t [][]float64, d [][]float64) float64 {
	apply := func(k int) []float64 {
		y := make([]float64, len(w[k])/sizes[k])
		for i := range y {
			for j, x := range d[k] {
				y[i] += w[k][i*sizes[k]+j] * x
			}
		}
		return y
	}
	total := 0.0
	for _, x := range d[0] {
		total += c * c * x * x
	}
	for k := range t {
		for i, z := range apply(k) {
			v := d[k+1][i]
			total -= 2 * (v - low[k]*z) * t[k][i] * (high[k]*z - v)
		}
	}
	for _, z := range apply(len(t)) {
		total -= z * z
	}
	return total
}

func TestFormsOfMultipliersAreThoseOfThePage(t *testing.T) {
	for n := 0; n < 60; n++ {
		sizes, depth := []int{1 + source.Intn(4)}, 1+source.Intn(3)
		for k := 0; k <= depth; k++ {
			sizes = append(sizes, 1+source.Intn(5))
		}
		shift := source.Intn(60) - 30 // all matrices times 2^shift: what the checker sees
		var w, times [][]float64
		var low, high []float64
		layers := []*plainBlock{}
		total := 0
		for k := 0; k <= depth; k++ {
			x := normals(sizes[k] * sizes[k+1])
			w = append(w, x)
			total += sizes[k]
			if k == depth {
				break
			}
			slope := []float64{0, 0.25, -0.5, 2, 1}[source.Intn(5)]
			low, high = append(low, math.Min(slope, 1)), append(high, math.Max(slope, 1))
			p := &plainBlock{}
			g := doubles(x, sizes[k+1], sizes[k]).onGrid()
			p.w = &dense{a: matrix{sizes[k+1], sizes[k], g.m, g.e + shift}, off: g.off.scaled(shift)}
			own := make([]float64, sizes[k+1])
			for i := range own {
				m, e := int64(1+source.Intn(4000)), source.Intn(9)-12
				own[i] = math.Ldexp(float64(m), e)
				p.t, p.e = append(p.t, m), append(p.e, e+2*shift*(depth-k))
				p.low, p.high = append(p.low, int64(4096*low[k])), append(p.high, int64(4096*high[k]))
			}
			times, layers = append(times, own), append(layers, p)
		}
		g := doubles(w[depth], sizes[depth+1], sizes[depth]).onGrid()
		head := &dense{a: matrix{sizes[depth+1], sizes[depth], g.m, g.e + shift}, off: g.off.scaled(shift)}
		holds := func(c float64) bool {
			return newForm(layers, head, times2(exactly(c), shift*(depth+1))).holds()
		}
		split := func(v []float64) [][]float64 {
			d := [][]float64{}
			for k := 0; k <= depth; k++ {
				d, v = append(d, v[:sizes[k]]), v[sizes[k]:]
			}
			return d
		}
		fits := func(c float64) bool { // by values at sums of unit vectors
			at := func(i, j int) float64 {
				v := make([]float64, total)
				v[i]++
				if j >= 0 {
					v[j]++
				}
				return formValue(c, w, sizes, low, high, times, split(v))
			}
			a := make([][]float64, total)
			scale := make([]float64, total)
			for i := range a {
				scale[i] = at(i, -1)
				if scale[i] <= 0 {
					return false
				}
			}
			for i := range a {
				a[i] = make([]float64, total)
				for j := range a[i] {
					a[i][j] = scale[i]
					if i != j {
						a[i][j] = (at(i, j) - scale[i] - scale[j]) / 2
					}
					a[i][j] /= math.Sqrt(scale[i] * scale[j])
				}
			}
			return positive(a)
		}
		if !fits(1e30) {
			if holds(1e30) {
				t.Fatal("no constant at all")
			}
			continue
		}
		c, d := 1e-30, 1e30
		for i := 0; i < 200; i++ {
			if middle := math.Sqrt(c * d); fits(middle) {
				d = middle
			} else {
				c = middle
			}
		}
		if !holds(d*1.001) || holds(d*0.999) {
			t.Error(n, sizes, low, high, d, shift)
		}
	}
}
