package main

import (
	"math"
	"math/big"
	"testing"
)

func bigTriple(bits int) *big.Int {
	a := new(big.Int).Rand(source, new(big.Int).Lsh(bigs(1), uint(source.Intn(bits)+1)))
	if source.Intn(2) == 0 {
		a.Neg(a)
	}
	return a
}

func tripled(a *big.Int) triple {
	m := new(big.Int).Abs(a)
	r := triple{new(big.Int).Rsh(m, 128).Uint64(), new(big.Int).Rsh(m, 64).Uint64(), m.Uint64()}
	r.mid = new(big.Int).And(new(big.Int).Rsh(m, 64), new(big.Int).SetUint64(math.MaxUint64)).Uint64()
	r.lo = new(big.Int).And(m, new(big.Int).SetUint64(math.MaxUint64)).Uint64()
	if a.Sign() < 0 {
		return triple{}.minus(r)
	}
	return r
}

func TestTriplesAreThoseOfMathBig(t *testing.T) {
	for n := 0; n < 20000; n++ {
		a, b := bigTriple(190), bigTriple(190)
		if tripled(a).big().Cmp(a) != 0 || tripled(a).plus(tripled(b)).big().Cmp(new(big.Int).Add(a, b)) != 0 ||
			tripled(a).minus(tripled(b)).big().Cmp(new(big.Int).Sub(a, b)) != 0 {
			t.Fatal(a, b)
		}
		shift := source.Intn(420) - 280
		exact := new(big.Int).Abs(a)
		if shift >= 0 {
			exact.Lsh(exact, uint(shift))
		} else {
			exact.Rsh(exact, uint(-shift))
		}
		if a.Sign() < 0 {
			exact.Neg(exact)
		}
		v, fits := tripled(a).moved(shift)
		if fits != (exact.BitLen() <= longestEntry) || fits && v.big().Cmp(exact) != 0 {
			t.Fatal(a, shift, v.big(), fits)
		}
	}
}

func TestMixedProductsAreExact(t *testing.T) {
	for n := 0; n < 500; n++ {
		size := source.Intn(100)
		x, v, a, b := make([]wide, size), make([]int64, size), make([]int64, size), make([]int64, size)
		total, exact, exact2 := triple{}, new(big.Int), new(big.Int)
		for i := range x {
			x[i], v[i] = times(integral(54), integral(61)), 2*integral(61)
			total = total.plus(x[i].triple())
			exact.Add(exact, new(big.Int).Mul(x[i].big(), bigs(v[i])))
			a[i], b[i] = integral(60), integral(58)
			exact2.Add(exact2, new(big.Int).Mul(bigs(a[i]), bigs(b[i])))
		}
		if mixed(x, v, total).big().Cmp(exact) != 0 || product(a, b).big().Cmp(exact2) != 0 {
			t.Fatal(exact, exact2)
		}
	}
	const most = 1 << 13 // the longest block of a form, with the largest numbers
	x, v, total := make([]wide, most), make([]int64, most), triple{}
	for i := range x {
		x[i], v[i] = times(-(1<<54-1), 1<<62), 1<<62
		total = total.plus(x[i].triple())
	}
	exact := new(big.Int).Lsh(bigs(-(1<<54 - 1)), 62+62+13)
	if mixed(x, v, total).big().Cmp(exact) != 0 {
		t.Fatal("wraps")
	}
}

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

// entriesOf is a random symmetric matrix with a 1 on its diagonal, in units of 2^-unitBits.
func entriesOf(n int, first func(int) int) *envelope {
	a := newEnvelope(n, first)
	a.fill(func(i, j int) (wide, bool) {
		if i == j {
			return widen(1).up(unitBits), true
		}
		return times(integral(60), integral(53)), true
	})
	return a
}

func TestResidualsAreThoseOfMathBig(t *testing.T) {
	for n := 0; n < 60; n++ {
		size := 1 + source.Intn(40)
		band := source.Intn(size)
		a := entriesOf(size, func(i int) int { return most(0, i-band) })
		l := make([]int64, len(a.exact))
		for p := range l {
			l[p] = integral(59 - source.Intn(4))
		}
		at := func(i, j int) *big.Int {
			if j > i || j < a.first[i] {
				return new(big.Int)
			}
			return bigs(l[a.at(i, j)])
		}
		margin := widen(1).up(80 + source.Intn(36))
		total := new(big.Int)
		for i := 0; i < size; i++ {
			for j := 0; j < size; j++ {
				x := new(big.Int)
				if p, q := most(i, j), least(i, j); q >= a.first[p] {
					x.Set(a.exact[a.at(p, q)].big())
				}
				if i == j {
					x.Sub(x, margin.big())
				}
				for k := 0; k < size; k++ {
					x.Sub(x, new(big.Int).Mul(at(i, k), at(j, k)))
				}
				total.Add(total, x.Mul(x, x))
			}
		}
		exact := new(big.Rat).SetInt(total)
		square := a.residual(l, margin)
		if square.Cmp(exact) < 0 || square.Cmp(multiply(exact, new(big.Rat).Add(whole(1), power(-18)))) > 0 {
			t.Fatal(size, square, exact)
		}
	}
}

func TestRoomForWhatIsOff(t *testing.T) {
	for _, n := range []int{1, 2, 33, 100} {
		a := entriesOf(n, func(i int) int { return i })
		margin := power(unitBits - 51 + big.NewInt(int64(n)).BitLen())
		for k, valid := range map[int]bool{-20: true, -1: true, 1: false, 40: false} {
			if a.positive(above(times2(margin, k))) != valid {
				t.Error(n, k)
			}
		}
		a.exact[a.at(n-1, n-1)] = widest(new(big.Int).Quo(margin.Num(), bigs(2))) // less than the margin
		if a.positive(nothing()) {
			t.Error(n, "an eigenvalue of half the margin")
		}
	}
}

func TestFactorsThatAreTooLong(t *testing.T) {
	for _, x := range []float64{0x1p61, 0x1p70, math.Inf(1), math.NaN(), -0x1p62} {
		a := newEnvelope(2, func(int) int { return 0 })
		if _, ok := a.wholeRows([]float64{1, x, 1}); ok {
			t.Error(x)
		}
		if l, ok := a.wholeRows([]float64{0x1p60, -0x1p59, 0.75}); !ok || l[0] != 1<<60 || l[1] != -1<<59 || l[2] != 1 {
			t.Error(l)
		}
	}
}
