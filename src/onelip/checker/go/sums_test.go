package main

import (
	"math"
	"testing"
)

// heaviestOf is the largest sums of a row and of a column.
func heaviestOf(a []float64, rows, cols int) (row, column float64) {
	columns := make([]float64, cols)
	for i := 0; i < rows; i++ {
		s := 0.0
		for j := range columns {
			s += a[i*cols+j]
			columns[j] += a[i*cols+j]
		}
		row = math.Max(row, s)
	}
	return row, peakOf(columns)
}

func TestTermsAndSizesAreThoseOfTheWholeMap(t *testing.T) {
	one := [2]int{1, 1}
	more := []*convolution{
		layer(1, 1, 3, 3, 1, [3]int{1, 5, 4}, [2]int{2, 2}, one, one, true), // pixels whose copies have other residues
		layer(2, 1, 3, 2, 1, [3]int{1, 3, 5}, [2]int{1, 3}, [2]int{3, 5}, one, true),
		layer(2, 2, 2, 3, 1, [3]int{2, 7, 5}, [2]int{3, 1}, [2]int{2, 4}, [2]int{2, 2}, true),
		layer(2, 1, 7, 1, 1, [3]int{1, 4, 2}, [2]int{2, 1}, [2]int{5, 2}, one, false),
	}
	for n, c := range append(layers(), more...) {
		h := c.heaviest()
		sizes, counts := *c, *c
		sizes.weight.m = absolute(c.weight.m)
		counts.weight = grid{make([]int64, len(c.weight.m)), 0, nothing()}
		for i := range counts.weight.m {
			if c.given.double(i) != 0 {
				counts.weight.m[i] = 1
			}
		}
		a, rows, cols := full(&sizes)
		row, column := heaviestOf(a, rows, cols)
		if unit := math.Ldexp(1, c.weight.e); h.weights[0]*unit != row || h.weights[1]*unit != column {
			t.Error(n, h.weights, row, column)
		}
		if total := floatOf(h.total(c.weight.e)); longest(a, rows, cols) > total || total > math.Sqrt(row*column)*1.00001 {
			t.Error(n, "the norm of absolute weights")
		}
		a, rows, cols = full(&counts)
		if row, column = heaviestOf(a, rows, cols); h.terms != [2]int{int(row), int(column)} {
			t.Error(n, h.terms, row, column)
		}
	}
}

func TestBiasesAreTermsWhereTheyAreNotZero(t *testing.T) {
	m := newBuilder(single())
	w := m.tensor(doubles([]float64{1, 2, -2, 3, 0, 0}, 2, 3))
	for bias, n := range map[float64]int{0: 2, 0.5: 3} {
		d := m.read(record{"map": "dense", "norm": digitsOf(5), "weight": w, "bias": m.tensor(doubles([]float64{0, bias}, 2))}, 3).(*dense)
		if d.forward.additions() != n || d.back.terms != 2 {
			t.Error(bias, d.forward.terms, d.back.terms)
		}
	}
	zeros := m.read(record{"map": "dense", "norm": digitsOf(0), "weight": m.tensor(doubles(make([]float64, 4), 2, 2)), "bias": nil}, 2).(*dense)
	if zeros.forward.additions() != 0 || zeros.forward.total.f.Sign() != 0 {
		t.Error("zeros")
	}
}

func TestMapsOnOneTensorMayNotKeepAllMemory(t *testing.T) {
	defer allow(1<<16, 0)
	m := newBuilder(single())
	r := record{"map": "dense", "norm": digitsOf(20), "weight": m.random(1, 8, 8), "bias": nil}
	many := func() {
		for i := 0; i < 3; i++ {
			m.read(r, 8)
		}
	}
	allow(1, 0)
	many()
	free = 64 * 32 * 2
	if !refused(many) {
		t.Error("three times")
	}
}
