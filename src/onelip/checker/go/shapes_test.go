package main

import (
	"math"
	"math/big"
	"testing"
)

// shaped is an activation, read from tensors, and its values by the words of the page at exact numbers, by another way.
type shaped struct {
	record   record
	tensors  map[string]*tensor
	input    []int
	constant float64 // just enough for a block
	values   func(x []*big.Float) []*big.Float
}

func (s *shaped) bundle() *bundle { return &bundle{tensors: s.tensors} }

func drawn(n int, size float64) []float64 {
	x := normals(n)
	for i := range x {
		x[i] *= size
	}
	return x
}

// sine3 is sin and cos of an angle.
func sine3(a *big.Float) (sin, cos *big.Float) {
	turns, _ := div(a, mul(long(2), pi3)).Float64()
	a = add(a, mul(long(-2*math.Round(turns)), pi3))
	sin, cos = long(0), long(0)
	for term, k := long(1), 0; k < 120; k++ {
		sum := []**big.Float{&cos, &sin}[k%2]
		if k%4 < 2 {
			*sum = add(*sum, term)
		} else {
			*sum = add(*sum, neg(term))
		}
		term = div(mul(term, a), long(float64(k+1)))
	}
	return sin, cos
}

func hypot3(x, y *big.Float) *big.Float { return long(0).Sqrt(add(mul(x, x), mul(y, y))) }

// angle3 is the angle of a point: that of floating point, and what is left when the point is turned back by that.
func angle3(x, y *big.Float) *big.Float {
	u, _ := x.Float64()
	v, _ := y.Float64()
	if u == 0 && v == 0 {
		return long(0)
	}
	near := long(math.Atan2(v, u))
	sin, cos := sine3(near)
	tan := div(add(mul(y, cos), neg(mul(x, sin))), add(mul(x, cos), mul(y, sin)))
	sum, term := long(0), tan
	for k := 1.0; k < 14; k += 2 {
		sum = add(sum, div(term, long(k)))
		term = neg(mul(term, mul(tan, tan)))
	}
	return add(near, sum)
}

func newFold(n, pairs, area int) *shaped {
	rays, peaks := drawn(n*pairs, 3), drawn(n*pairs, 1)
	rays[0] = 1000
	s := &shaped{constant: 1, input: []int{2 * pairs, area}, record: record{"kind": "fold", "rays": "r", "peaks": "p"}}
	s.tensors = map[string]*tensor{"r": doubles(rays, n, pairs), "p": doubles(peaks, n, pairs)}
	s.values = func(x []*big.Float) []*big.Float {
		y := make([]*big.Float, len(x))
		for i := range y {
			pair, p := i/area/2, i%area
			first, second := x[2*pair*area+p], x[(2*pair+1)*area+p]
			phi := angle3(first, second)
			var highest *big.Float
			for k := 0; k < n; k++ {
				d := add(phi, long(-rays[k*pairs+pair]))
				turns, _ := div(d, mul(long(2), pi3)).Float64()
				d = add(d, mul(long(-2*math.Round(turns)), pi3))
				h := add(long(peaks[k*pairs+pair]), neg(d.Abs(d)))
				if highest == nil || highest.Cmp(h) < 0 {
					highest = h
				}
			}
			sin, cos := sine3(highest)
			y[i] = mul(hypot3(first, second), []*big.Float{cos, sin}[i/area%2])
		}
		return y
	}
	return s
}

func newRays(pairs, area int) *shaped {
	angles := drawn(pairs, 2)
	angles[0] = math.Pi / 2
	s := &shaped{constant: 1, input: []int{2 * pairs, area}, record: record{"kind": "rays", "angles": "a"}, tensors: map[string]*tensor{"a": doubles(angles, pairs)}}
	s.values = func(x []*big.Float) []*big.Float {
		y := make([]*big.Float, len(x)/2)
		for i := range y {
			first, second := x[i], long(0).Abs(x[i+len(y)])
			sin, cos := sine3(long(angles[i/area]))
			sin.Abs(sin)
			if add(mul(cos, first), mul(sin, second)).Sign() >= 0 {
				y[i] = add(mul(cos, second), neg(mul(sin, first)))
			} else if y[i] = hypot3(first, second); cos.Sign() < 0 {
				y[i] = neg(y[i])
			}
		}
		return y
	}
	return s
}

func newPolygon(count, pairs, area int, size float64) *shaped {
	corners := drawn(count*2*pairs, size)
	if count > 2 {
		copy(corners[2*pairs:], corners[4*pairs:6*pairs]) // a segment of one point
	}
	s := &shaped{constant: 1, input: []int{2 * pairs, area}, record: record{"kind": "polygon", "corners": "c"}, tensors: map[string]*tensor{"c": doubles(corners, count, 2, pairs)}}
	s.values = func(x []*big.Float) []*big.Float {
		y := make([]*big.Float, len(x)/2)
		for i := range y {
			from := func(k int) (u, v *big.Float) {
				at := 2*k*pairs + i/area
				return add(x[i], long(-corners[at])), add(x[i+len(y)], long(-corners[at+pairs]))
			}
			u, v := from(0)
			least := hypot3(u, v)
			for k := 1; k < count; k++ {
				p, q := from(k) // the segment is from (u, v) to (p, q), seen from the point
				dx, dy := add(p, neg(u)), add(q, neg(v))
				square := add(mul(dx, dx), mul(dy, dy))
				share := long(0)
				if square.Sign() > 0 {
					share = div(neg(add(mul(u, dx), mul(v, dy))), square)
				}
				if share.Sign() < 0 {
					share = long(0)
				} else if share.Cmp(long(1)) > 0 {
					share = long(1)
				}
				if d := hypot3(add(u, mul(share, dx)), add(v, mul(share, dy))); d.Cmp(least) < 0 {
					least = d
				}
				u, v = p, q
			}
			y[i] = least
		}
		return y
	}
	return s
}

func newPieces(count, columns, area int, bent bool) *shaped {
	knots, slopes, bends, value := make([]float64, count*columns), drawn((count+1)*columns, 1), drawn((count-1)*columns, 2), drawn(columns, 1)
	for i := range knots {
		if i >= columns {
			knots[i] = knots[i-columns] + math.Max(0, source.NormFloat64())*0.5
		} else {
			knots[i] = source.NormFloat64() - 1
		}
	}
	r := record{"kind": "piecewise", "knots": "k", "slopes": "s", "bends": nil, "value": "v"}
	s := &shaped{input: []int{columns, area}, record: r, tensors: map[string]*tensor{
		"k": doubles(knots, count, columns, 1), "s": doubles(slopes, count+1, columns, 1), "v": doubles(value, columns, 1)}}
	if bent {
		r["bends"], s.tensors["b"] = "b", doubles(bends, count-1, columns, 1)
	}
	most := whole(0)
	seen := func(x *big.Float) { most = larger(most, rational(long(0).Abs(x))) }
	for i, x := range slopes {
		seen(long(x))
		if bent && i >= columns && i < count*columns {
			seen(add(long(x), mul(long(bends[i-columns]), add(long(knots[i]), long(-knots[i-columns])))))
		}
	}
	s.constant, _ = most.Float64()
	if exactly(s.constant).Cmp(most) < 0 {
		s.constant = math.Nextafter(s.constant, 10)
	}
	s.values = func(x []*big.Float) []*big.Float {
		y := make([]*big.Float, len(x))
		for i := range y {
			c := i / area
			knot := func(k int) *big.Float { return long(knots[(k-1)*columns+c]) }
			y[i] = long(value[c])
			if d := add(x[i], neg(knot(1))); d.Sign() < 0 {
				y[i] = add(y[i], mul(long(slopes[c]), d))
			}
			if d := add(x[i], neg(knot(count))); d.Sign() > 0 {
				y[i] = add(y[i], mul(long(slopes[count*columns+c]), d))
			}
			for k := 1; k < count; k++ {
				t := x[i]
				if t.Cmp(knot(k)) < 0 {
					t = knot(k)
				}
				if t.Cmp(knot(k+1)) > 0 {
					t = knot(k + 1)
				}
				t = add(t, neg(knot(k)))
				y[i] = add(y[i], mul(long(slopes[k*columns+c]), t))
				if bent {
					y[i] = add(y[i], div(mul(long(bends[(k-1)*columns+c]), mul(t, t)), long(2)))
				}
			}
		}
		return y
	}
	return s
}

func newScaled(of string, channels, area int) *shaped {
	inner, up, down := drawn(channels, 1), drawn(channels, 1), drawn(channels, 1)
	inner[0] = -math.Abs(inner[0])
	if curves[of].lifts {
		down = append([]float64{}, up...)
	}
	s := &shaped{input: []int{channels, area}, record: record{"kind": "scaled", "of": of, "inner": "i", "above": "a", "below": "b"}}
	s.tensors = map[string]*tensor{"i": doubles(inner, channels, 1), "a": doubles(up, channels, 1), "b": doubles(down, channels, 1)}
	most := whole(0)
	for _, p := range []*big.Rat{curves[of].low, curves[of].high} {
		for _, q := range inner {
			for _, r := range append(append([]float64{}, up...), down...) {
				product := multiply(p, multiply(exactly(q), exactly(r)))
				most = larger(most, product.Abs(product))
			}
		}
	}
	s.constant, _ = most.Float64()
	if exactly(s.constant).Cmp(most) < 0 {
		s.constant = math.Nextafter(s.constant, 100)
	}
	s.values = func(x []*big.Float) []*big.Float {
		y := make([]*big.Float, len(x))
		for i := range y {
			c := i / area
			z := mul(long(inner[c]), x[i])
			factor := down[c]
			if z.Sign() > 0 {
				factor = up[c]
			}
			y[i] = mul(long(factor), reference[of](z))
		}
		return y
	}
	return s
}

func allShapes() map[string]*shaped {
	all := map[string]*shaped{
		"fold": newFold(3, 4, 3), "one ray": newFold(1, 2, 1), "rays": newRays(5, 4), "corner": newPolygon(1, 3, 2, 1), "segment": newPolygon(2, 3, 2, 1),
		"far polygon": newPolygon(5, 2, 3, 1e9), "polygon": newPolygon(6, 3, 4, 1), "one knot": newPieces(1, 3, 2, false), "lines": newPieces(7, 2, 4, false), "parabolas": newPieces(5, 3, 3, true),
	}
	for _, name := range names {
		all["scaled "+name] = newScaled(name, 3, 2)
	}
	return all
}

func TestShapesCoverTheirValues(t *testing.T) {
	defer seeded()()
	for name, s := range allShapes() {
		a := s.bundle().readActivation(s.record, s.input, "it")
		for n := 0; n < 12; n++ {
			x := grid{make([]int64, entries(s.input, "it")), 2 - precise, nothing()}
			exact, shift := make([]*big.Float, len(x.m)), new(big.Rat)
			for i := range x.m {
				x.m[i] = integral(precise)
				if n == 1 {
					x.m[i] >>= 40 // short numbers have ties
					x.m[i] <<= 40
				}
				exact[i] = long(0).SetMantExp(long(float64(x.m[i])), x.e)
				if n > 5 { // the exact numbers are somewhat off; the grid says so
					d := big.NewRat(int64(source.Intn(2001)-1000), 1<<30)
					shift.Add(shift, multiply(d, d))
					exact[i] = add(exact[i], long(0).SetRat(d))
				}
			}
			if n > 5 {
				square := floor(times2(shift, 120))
				x.off = rootOf(square.Add(square, bigs(1))).scaled(-60)
			}
			values := s.values(exact)
			y := a.apply(x)
			if len(y.m) != entries(a.outputs, "it") || len(values) != len(y.m) {
				t.Fatal(name, "has another shape")
			}
			rationals := make([]*big.Rat, len(values))
			for i, v := range values {
				rationals[i] = rational(v)
			}
			covers(t, y, rationals, name)
			if n <= 5 && y.off.f.Cmp(lengthOf(y.m, y.e).plus(lengthOf(x.m, x.e)).scaled(-44).f) > 0 {
				t.Error(name, "is off by", y.off.f)
			}
		}
		// All at 0, and numbers so large or small that floats do not have them.
		for _, e := range []int{-5000, 5000} {
			x := grid{make([]int64, entries(s.input, "it")), e, nothing()}
			a.apply(x)
			x.m[0] = lift
			a.apply(x)
		}
	}
}

// The constant is just enough for a block, and an ulp less is not.
func TestConstantsOfShapesAreThoseOfThePage(t *testing.T) {
	defer seeded()()
	for name, s := range allShapes() {
		for n, valid := range map[float64]bool{s.constant: true, math.Nextafter(s.constant, 0): false} {
			r := record{"inner": []any{}, "activation": s.record, "outer": []any{}, "skip": nil, "bound": digitsOf(n)}
			if refused(func() { s.bundle().readBlock(r, s.input, "it") }) == valid {
				t.Error(name, n, valid)
			}
		}
	}
}

// Where a point is at the same distance of two rays, or opposite to one, either way is right; and the ends of turns.
func TestFoldsAtTheirEdges(t *testing.T) {
	defer seeded()()
	angles := []float64{0, math.Pi, -math.Pi, math.Pi / 2, 1024, -1024, 2 * math.Pi, math.Nextafter(2*math.Pi, 0), 3 * math.Pi, 5e-324}
	for _, r := range angles {
		for _, p := range angles {
			s := newFold(2, 1, 1)
			copy(s.tensors["r"].raw, doubles([]float64{r, 0}, 2).raw)
			copy(s.tensors["p"].raw, doubles([]float64{p, p}, 2).raw)
			o := s.bundle().readActivation(s.record, s.input, "it")
			for _, at := range [][2]int64{{1, 0}, {-1, 0}, {0, 1}, {0, -1}, {lift, lift}, {-lift, lift}, {-lift, 1}, {-lift, -1}, {1, -lift}, {lift, -1}} {
				y := o.apply(grid{at[:], 0, nothing()})
				// By floating point, which knows a dozen digits of such angles.
				phi, highest := math.Atan2(float64(at[1]), float64(at[0])), math.Inf(-1)
				for _, ray := range []float64{r, 0} {
					d := math.Abs(math.Remainder(phi-ray, 2*math.Pi))
					highest = math.Max(highest, p-d)
				}
				length := math.Hypot(float64(at[0]), float64(at[1]))
				u, v := math.Ldexp(float64(y.m[0]), y.e), math.Ldexp(float64(y.m[1]), y.e)
				if math.Hypot(u-length*math.Cos(highest), v-length*math.Sin(highest)) > 1e-11*length {
					t.Error(r, p, at, u, v)
				}
			}
		}
	}
}

func TestDirections(t *testing.T) {
	defer seeded()()
	for n := 0; n < 3000; n++ {
		x, y := integral(precise), integral(precise)
		if n%3 == 0 {
			x >>= uint(source.Intn(50))
		}
		if n%5 == 0 {
			y = x
		}
		if n%7 == 0 {
			y = x / 64 * int64(source.Intn(129)-64)
		}
		if x == 0 && y == 0 {
			continue
		}
		exact := angle3(long(float64(x)), long(float64(y)))
		d := add(exact.SetMantExp(exact, angular), neg(long(0).SetInt64(direction(x, y))))
		if off, _ := d.Float64(); math.Abs(off) >= 4 {
			t.Fatal(x, y, off)
		}
	}
	if direction(0, 0) != 0 || direction(-1, 0) != halfTurn || direction(0, -1) != -quarterTurn {
		t.Error("axes")
	}
}

func TestShapesThatDoNotFit(t *testing.T) {
	read := func(s *shaped, level *level) bool {
		b := s.bundle()
		b.level = level
		return !refused(func() { b.readActivation(s.record, s.input, "it") })
	}
	for name, s := range allShapes() {
		if !read(s, nil) || read(s, single()) {
			t.Error(name)
		}
		for field := range s.record {
			value := s.record[field]
			if delete(s.record, field); field != "kind" && read(s, nil) {
				t.Error(name, "without", field)
			}
			s.record[field] = value
			for _, wrong := range []any{"none", digits("1"), true, "whole"} {
				s.tensors["whole"] = integers([]int64{0}, 1)
				s.record[field] = wrong
				if field != "kind" && read(s, nil) {
					t.Error(name, field, wrong)
				}
			}
			s.record[field] = value
		}
		s.record["more"] = nil
		if read(s, nil) {
			t.Error(name, "with another field")
		}
	}
	change := func(s *shaped, name string, other *tensor) *shaped { s.tensors[name] = other; return s }
	zeros := func(shape ...int) *tensor { return doubles(make([]float64, entries(shape, "it")), shape...) }
	for name, s := range map[string]*shaped{
		"rays and peaks":     change(newFold(2, 3, 1), "r", zeros(3, 3)),
		"no rays":            change(change(newFold(2, 3, 1), "r", zeros(0, 3)), "p", zeros(0, 3)),
		"channels of a fold": change(change(newFold(2, 3, 1), "r", zeros(2, 2)), "p", zeros(2, 2)),
		"axes of a fold":     change(change(newFold(2, 3, 1), "r", zeros(6)), "p", zeros(6)),
		"a far ray":          change(newFold(2, 3, 1), "r", doubles([]float64{0, 0, 0, 0, 0, math.Nextafter(1024, 2000)}, 2, 3)),
		"a far peak":         change(newFold(2, 3, 1), "p", doubles([]float64{0, 0, 0, 0, 0, -1025}, 2, 3)),
		"a far angle":        change(newRays(2, 1), "a", doubles([]float64{0, 1025}, 2)),
		"angles":             change(newRays(2, 1), "a", zeros(1)),
		"axes of angles":     change(newRays(2, 1), "a", zeros(2, 1)),
		"sides":              change(newPolygon(3, 2, 1, 1), "c", zeros(3, 3, 2)),
		"pairs":              change(newPolygon(3, 2, 1, 1), "c", zeros(3, 2, 1)),
		"axes":               change(newPolygon(3, 2, 1, 1), "c", zeros(3, 4)),
		"no corners":         change(newPolygon(3, 2, 1, 1), "c", zeros(0, 2, 2)),
		"slopes":             change(newPieces(3, 2, 1, true), "s", zeros(3, 2, 1)),
		"bends":              change(newPieces(3, 2, 1, true), "b", zeros(3, 2, 1)),
		"columns":            change(newPieces(3, 2, 1, true), "v", zeros(1, 1)),
		"value":              change(newPieces(3, 2, 1, true), "v", zeros(2, 2)),
		"order":              change(newPieces(3, 1, 1, true), "k", doubles([]float64{0, 1, math.Nextafter(1, 0)}, 3, 1, 1)),
		"knots":              change(change(newPieces(3, 1, 1, false), "k", zeros(4097, 1, 1)), "s", zeros(4098, 1, 1)),
		"no knots":           change(change(newPieces(3, 1, 1, false), "k", zeros(0, 1, 1)), "s", zeros(1, 1, 1)),
		"shapes of factors":  change(newScaled("silu", 3, 1), "a", zeros(1, 1)),
		"inner":              change(newScaled("silu", 3, 1), "i", zeros(2)),
		"a jump":             change(newScaled("sigmoid", 3, 1), "a", zeros(3, 1)),
	} {
		if read(s, nil) {
			t.Error(name)
		}
	}
	for name, s := range map[string]*shaped{
		"a far ray":   change(newFold(2, 3, 1), "r", doubles([]float64{0, 0, 0, 0, 0, 1024}, 2, 3)),
		"equal knots": change(newPieces(3, 1, 1, true), "k", zeros(3, 1, 1)),
		"knots":       change(change(newPieces(3, 1, 1, false), "k", zeros(4096, 1, 1)), "s", zeros(4097, 1, 1)),
		"no jump":     change(newScaled("silu", 3, 1), "a", zeros(3, 1)),
	} {
		if !read(s, nil) {
			t.Error(name)
		}
	}
	one := change(change(newPieces(1, 1, 1, false), "b", zeros(0, 1, 1)), "v", zeros(1, 1))
	one.record["bends"] = "b"
	if read(one, nil) {
		t.Error("bends of one knot")
	}
	for _, value := range []string{"leaky-relu", "Mish", "scaled", "relu"} {
		s := newScaled("silu", 3, 1)
		s.record["of"] = value
		if read(s, nil) {
			t.Error("scaled of", value)
		}
	}
}
