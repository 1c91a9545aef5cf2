package main

import (
	"math"
	"math/big"
	"testing"
)

// network is a random one with multipliers; wide numbers range over many powers of 2.
func network(sizes []int, spread int, slope func() float64) *form {
	f := &form{}
	for k := 0; k+1 < len(sizes); k++ {
		w := make([]float64, sizes[k]*sizes[k+1])
		for i := range w {
			w[i] = source.NormFloat64()
			if spread > 0 {
				w[i] = math.Ldexp(w[i], source.Intn(spread)-spread/2)
			}
			if source.Intn(9) == 0 {
				w[i] = 0
			}
		}
		f.matrices = append(f.matrices, doubles(w, sizes[k+1], sizes[k]))
		if k+2 == len(sizes) {
			break
		}
		t, s := make([]float64, sizes[k+1]), make([]float64, sizes[k+1])
		for i := range t {
			t[i], s[i] = math.Exp(source.NormFloat64()), slope()
		}
		of := &neurons{&dense{a: matrix{rows: sizes[k+1]}}, func(i int) *big.Rat { return new(big.Rat).SetFloat64(s[i]) }}
		f.conditions = append(f.conditions, conditions(doubles(t, len(t)), of, "it"))
	}
	return f
}

// value is the form at d, by its definition.
func (f *form) value(d [][]*big.Rat) *big.Rat {
	total := new(big.Rat)
	add := func(x *big.Rat, sign int64) { total.Add(total, multiply(x, whole(sign))) }
	for _, x := range d[0] {
		add(multiply(multiply(f.c, f.c), multiply(x, x)), 1)
	}
	for k, w := range f.matrices {
		for r := 0; r < w.shape[0]; r++ {
			u := new(big.Rat)
			for j := 0; j < w.shape[1]; j++ {
				u.Add(u, multiply(w.fraction(r*w.shape[1]+j), d[k][j]))
			}
			if k == len(f.conditions) {
				add(multiply(u, u), -1)
				continue
			}
			s := f.conditions[k][r]
			slope, t := times2(whole(s.slope), -s.places), times2(whole(s.count), s.e)
			a, b := smaller(slope, whole(1)), larger(slope, whole(1))
			first := new(big.Rat).Sub(d[k+1][r], multiply(a, u))
			second := new(big.Rat).Sub(multiply(b, u), d[k+1][r])
			add(multiply(t, multiply(first, second)), -2)
		}
	}
	return total
}

// exact is the form's matrix, by polarisation.
func (f *form) exact() [][]*big.Rat {
	n := 0
	for _, w := range f.matrices {
		n += w.shape[1]
	}
	at := func(i, j int) *big.Rat {
		d := make([][]*big.Rat, len(f.matrices))
		p := 0
		for k, w := range f.matrices {
			for c := 0; c < w.shape[1]; c++ {
				x := int64(0)
				if p == i {
					x++
				}
				if p == j {
					x++
				}
				d[k] = append(d[k], whole(x))
				p++
			}
		}
		return f.value(d)
	}
	m, alone := make([][]*big.Rat, n), make([]*big.Rat, n)
	for i := range m {
		alone[i] = at(i, -1)
	}
	for i := range m {
		m[i] = make([]*big.Rat, n)
		for j := range m {
			m[i][j] = times2(new(big.Rat).Sub(at(i, j), new(big.Rat).Add(alone[i], alone[j])), -1)
		}
	}
	return m
}

// semidefinite is decided by exact elimination.
func semidefinite(m [][]*big.Rat) bool {
	for k := range m {
		if m[k][k].Sign() < 0 {
			return false
		}
		for i := k + 1; i < len(m); i++ {
			if m[i][k].Sign() == 0 {
				continue
			}
			if m[k][k].Sign() == 0 {
				return false
			}
			q := new(big.Rat).Quo(m[i][k], m[k][k])
			for j := k + 1; j < len(m); j++ {
				m[i][j] = new(big.Rat).Sub(m[i][j], multiply(q, m[k][j]))
			}
		}
	}
	return true
}

var slopes = []func() float64{
	func() float64 { return 0 },
	func() float64 { return -1 },
	func() float64 { return 1 },
	func() float64 { return 0.1 },
	func() float64 { return 1.7 },
	func() float64 { return source.NormFloat64() },
}

var shapes = [][]int{{3, 4, 2}, {2, 3, 3, 2}, {4, 2, 1, 3, 2}, {1, 1, 1}}

func TestMatricesOfFormsAreTheirDefinition(t *testing.T) {
	for n := 0; n < 120; n++ {
		f := network(shapes[n%len(shapes)], []int{0, 20, 90}[n%3], slopes[n%len(slopes)])
		f.c = new(big.Rat).SetFloat64(math.Ldexp(1, 900)) // so that the diagonal of d_0 is positive
		for k := range f.conditions {
			for i := range f.conditions[k] {
				f.conditions[k][i].e += 200 * (len(f.conditions) - k) // and the others
			}
		}
		var a *envelope
		var scale []int
		var off upper
		if refused(func() { a, scale, off = f.scaled("it") }) {
			t.Fatal("refused", n)
		}
		total := new(big.Rat)
		for i, row := range f.exact() {
			for j, x := range row {
				d := times2(x, scale[i]+scale[j]+unitBits)
				p, q := most(i, j), least(i, j)
				if q >= a.first[p] {
					d.Sub(d, new(big.Rat).SetInt(a.exact[a.at(p, q)].big()))
				}
				total.Add(total, multiply(d, d))
				if i == j && (a.exact[a.at(i, i)].float() < 0x1p116 || a.exact[a.at(i, i)].float() > 0x1p118) {
					t.Fatal("the diagonal is not scaled")
				}
			}
		}
		if room := off.fraction(); total.Cmp(multiply(room, room)) > 0 {
			t.Fatal(n, "is farther off than it says")
		}
	}
}

func TestRoundingOfWeightedSumsIsCounted(t *testing.T) {
	inexact := 0
	for n := 0; n < 200; n++ {
		rows, cols := 1+source.Intn(6), 1+source.Intn(4)
		w := make([]float64, rows*cols)
		for i := range w {
			w[i] = math.Ldexp(source.NormFloat64(), source.Intn(80)-40)
			if source.Intn(6) == 0 {
				w[i] = 0
			}
		}
		d := dyadics{make([]int64, rows), make([]int, rows)}
		for r := range d.q {
			d.q[r], d.e[r] = integral(53)>>source.Intn(53), source.Intn(90)-45
		}
		matrix := doubles(w, rows, cols)
		s := newWeighted(matrix, d)
		scale := make([]int, cols)
		for i := range scale {
			_, e := math.Frexp(s.length[i])
			scale[i] = -e/2 - s.unit[i] // as where the diagonal is about 1
		}
		total := new(big.Rat)
		for i := 0; i < cols; i++ {
			for j := 0; j < cols; j++ {
				x := times2(new(big.Rat).SetInt(s.entry(i, j).big()), s.unit[i]+s.unit[j])
				for r := range d.q {
					y := multiply(matrix.fraction(r*cols+i), matrix.fraction(r*cols+j))
					x.Sub(x, multiply(y, times2(whole(d.q[r]), d.e[r])))
				}
				x = times2(x, scale[i]+scale[j])
				total.Add(total, multiply(x, x))
			}
		}
		room := s.error(scale).fraction()
		if total.Cmp(multiply(room, room)) > 0 {
			t.Fatal(n, "is farther off than it says")
		}
		if room.Cmp(power(-20)) > 0 {
			t.Fatal(n, "says much more than it is off by")
		}
		if total.Sign() > 0 {
			inexact++
		}
	}
	if inexact < 50 {
		t.Fatal(inexact)
	}
}
