package main

import (
	"math"
	"math/big"
	"testing"
)

func TestSlopesAreRoundedAwayFromOne(t *testing.T) {
	for n := 0; n < 5000; n++ {
		slope := math.Ldexp(source.NormFloat64(), source.Intn(60)-50)
		switch n {
		case 0:
			slope = 5e-324
		case 1:
			slope = -5e-324
		case 2:
			slope = 0
		case 3:
			slope = 1
		case 4:
			slope = math.Nextafter(1, 2)
		case 5:
			slope = -1
		case 6:
			slope = 1<<28 - 1
		case 7:
			slope = 1 << 28
		case 8:
			slope = -1e300
		}
		exact := new(big.Rat).SetFloat64(slope)
		if math.Abs(slope) >= 1<<28 {
			if !refused(func() { outwards(exact, "it") }) {
				t.Fatal(slope)
			}
			continue
		}
		m, places := outwards(exact, "it")
		found := times2(whole(m), -places)
		d := new(big.Rat).Sub(found, exact)
		if slope < 1 && d.Sign() > 0 || slope >= 1 && d.Sign() < 0 || magnitude(m) > 1<<slopeBits || places > mostPlaces || places < 0 {
			t.Fatal(slope, m, places)
		}
		if room := math.Max(math.Ldexp(1, -mostPlaces), math.Abs(slope)*0x1p-27); d.Abs(d).Cmp(new(big.Rat).SetFloat64(room)) > 0 {
			t.Fatal(slope, "is far from", m, places)
		}
		if f := float64(float32(slope)); f == slope && math.Abs(slope) > 0x1p-12 && d.Sign() != 0 {
			t.Fatal(slope, "is not exact")
		}
	}
}

func TestMultipliersAreRoundedUpwards(t *testing.T) {
	of := func(rows int) *neurons {
		return &neurons{&dense{a: matrix{rows: rows}}, func(int) *big.Rat { return new(big.Rat) }}
	}
	x := []float64{0, math.Copysign(0, -1), 5e-324, 0.1, math.MaxFloat64, 1<<24 - 1, 1 << 24, 1<<24 + 1, 1<<25 - 1, 3e-310}
	for i, c := range conditions(doubles(x, len(x)), of(len(x)), "it") {
		exact, found := new(big.Rat).SetFloat64(x[i]), times2(whole(c.count), c.e)
		most := multiply(exact, new(big.Rat).Add(whole(1), power(1-countBits)))
		if c.count > 1<<countBits || found.Cmp(exact) < 0 || found.Cmp(most) > 0 {
			t.Error(x[i], c)
		}
	}
	for _, bad := range []*tensor{
		doubles([]float64{1, -5e-324}, 2), integers([]int64{1, math.MinInt64}, 2), doubles([]float64{1}, 1), doubles([]float64{1, 1, 1}, 3),
		doubles([]float64{1, 1}, 2, 1), doubles([]float64{1, 1}, 1, 2), doubles(nil, 0), doubles([]float64{1}),
	} {
		if !refused(func() { conditions(bad, of(2), "it") }) {
			t.Error(bad.shape)
		}
	}
	if c := conditions(integers([]int64{math.MaxInt64, 0}, 2), of(2), "it")[0]; c.count != 1<<countBits || c.e != 63-countBits {
		t.Error(c)
	}
}

// least is the least c = 2^(n / 2^10) whose form is exactly semidefinite; 0 where there is none.
func (f *form) leastConstant() float64 {
	low, high := -40<<10, 40<<10
	holds := func(n int) bool {
		f.c = new(big.Rat).SetFloat64(math.Exp2(float64(n) / 1024))
		return semidefinite(f.exact())
	}
	if !holds(high) {
		return 0
	}
	for high > low+1 {
		if middle := (low + high) >> 1; holds(middle) {
			high = middle
		} else {
			low = middle
		}
	}
	return math.Exp2(float64(high) / 1024)
}

func (f *form) shown(c float64) bool {
	f.c = new(big.Rat).SetFloat64(c)
	return !refused(func() { f.show("it") })
}

func TestConstantsAreShownExactlyWhereTheFormIsPositive(t *testing.T) {
	tried := 0
	for n := 0; n < 32; n++ {
		f := network(shapes[n%len(shapes)], []int{0, 6}[n%2], slopes[n%len(slopes)])
		for k := range f.conditions {
			for i := range f.conditions[k] {
				f.conditions[k][i].e += 4 * (len(f.conditions) - k)
			}
		}
		c := f.leastConstant()
		if c == 0 {
			if f.shown(0x1p41) {
				t.Fatal(n, "there is no such constant")
			}
			continue
		}
		if c < 0x1p-39 { // there may be no least one
			continue
		}
		tried++
		below, over := c*math.Exp2(-1.0/1024), c
		for over > below*(1+1e-13) { // between the two, by exact elimination
			middle := (below + over) / 2
			f.c = new(big.Rat).SetFloat64(middle)
			if semidefinite(f.exact()) {
				over = middle
			} else {
				below = middle
			}
		}
		if f.shown(below) || f.shown(below*(1-1e-6)) || f.shown(below/2) || f.shown(0) {
			t.Fatal(n, "shown below", c)
		}
		if !f.shown(over*(1+1e-6)) || !f.shown(over*2) {
			t.Fatal(n, "not shown above", c, f.matrices[0].shape)
		}
	}
	if tried < 18 {
		t.Fatal(tried)
	}
}

func TestUnitsDoNotMatter(t *testing.T) {
	for _, unit := range []int{-900, -300, 40, 300, 900} {
		f := network([]int{4, 5, 4, 3}, 3, slopes[5])
		for i := range f.conditions[0] {
			f.conditions[0][i].e += 20
		}
		for i := range f.conditions[1] {
			f.conditions[1][i].e += 10
		}
		c := f.leastConstant()
		for k, w := range f.matrices {
			x := make([]float64, w.length())
			for i := range x {
				x[i] = w.double(i)
				if k == 0 {
					x[i] = math.Ldexp(x[i], unit)
				}
				if k == 2 {
					x[i] = math.Ldexp(x[i], -unit)
				}
			}
			f.matrices[k] = doubles(x, w.shape...)
		}
		for k := range f.conditions {
			for i := range f.conditions[k] {
				f.conditions[k][i].e -= 2 * unit
			}
		}
		if !f.shown(c*(1+1e-7)) || f.shown(c*(1-1e-3)) {
			t.Fatal(unit, c)
		}
	}
}

func TestWhatNothingDependsOn(t *testing.T) {
	zero := condition{0, 0, 0, 0}
	one := condition{1, 0, 0, 0}
	f := &form{matrices: []*tensor{doubles([]float64{1, 0, 2, 0}, 2, 2), doubles([]float64{1, 0}, 1, 2)}, conditions: [][]condition{{one, zero}}}
	if !f.shown(1+1e-9) || f.shown(1-1e-12) {
		t.Error("the second neuron is not looked at: the constant is 1")
	}
	f.conditions[0][1] = one // it does no harm
	f.matrices[1] = doubles([]float64{1, 1}, 1, 2)
	f.conditions[0][1] = zero
	if f.shown(100) {
		t.Error("a neuron without a multiplier that is looked at")
	}
	f = &form{matrices: []*tensor{doubles([]float64{1}, 1, 1), doubles([]float64{0}, 1, 1)}, conditions: [][]condition{{zero}}}
	if !f.shown(0) {
		t.Error("a network that is 0")
	}
	f.conditions[0][0] = one
	if f.shown(0) {
		t.Error("a form that is negative, of a network that is 0")
	}
	f.matrices[1] = doubles([]float64{5e-324}, 1, 1)
	f.conditions[0][0] = zero
	if f.shown(0) || f.shown(math.MaxFloat64) {
		t.Error("a network that is not 0")
	}
	f.conditions[0][0] = condition{1, 0, -1 - 2*1074 + 1, 0} // 2 T = 2 w^2
	if !f.shown(1e-300) || f.shown(0) {
		t.Error("a network that is nearly 0")
	}
}

// TestWhatIsRoundedAwayDecides has 1 - (1 - 18 u^2) - w^2 on the diagonal, where w is rounded to multiples of u = 2^-62.
func TestWhatIsRoundedAwayDecides(t *testing.T) {
	for last, valid := range map[float64]bool{4: true, 4.4: false, 5: false} {
		f := &form{c: whole(1), conditions: [][]condition{nil}}
		w := []float64{}
		for k := 1; k <= 123; k++ {
			if k != 120 {
				w, f.conditions[0] = append(w, 1), append(f.conditions[0], condition{1, -1, -1 - k, 0})
			}
		}
		w, f.conditions[0] = append(w, math.Ldexp(last, -62)), append(f.conditions[0], condition{1, -1, -1, 0})
		n := len(w)
		f.matrices = []*tensor{doubles(w, n, 1), doubles(make([]float64, n), 1, n)}
		if !f.exactDiagonal(valid) || f.shown(1) != valid {
			t.Error(last)
		}
	}
}

// exactDiagonal says whether the first number on the diagonal is positive as it is expected to be.
func (f *form) exactDiagonal(positive bool) bool {
	d := make([][]*big.Rat, len(f.matrices))
	for k, w := range f.matrices {
		for i := 0; i < w.shape[1]; i++ {
			d[k] = append(d[k], new(big.Rat))
		}
	}
	d[0][0] = whole(1)
	return f.value(d).Sign() > 0 == positive
}
