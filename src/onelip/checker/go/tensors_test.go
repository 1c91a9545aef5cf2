package main

import (
	"encoding/binary"
	"math"
	"math/big"
	"testing"
)

// doubles is a tensor of float64 numbers.
func doubles(x []float64, shape ...int) *tensor {
	raw := make([]byte, 8*len(x))
	for i, v := range x {
		binary.LittleEndian.PutUint64(raw[8*i:], math.Float64bits(v))
	}
	return &tensor{"F64", shape, raw}
}

func integers(x []int64, shape ...int) *tensor {
	raw := make([]byte, 8*len(x))
	for i, v := range x {
		binary.LittleEndian.PutUint64(raw[8*i:], uint64(v))
	}
	return &tensor{"I64", shape, raw}
}

// distance2 is the square of the distance of a grid to exact numbers.
func distance2(g grid, exact []*big.Rat) *big.Rat {
	total := new(big.Rat)
	for i, x := range exact {
		d := times2(whole(g.m[i]), g.e)
		d.Sub(d, x)
		total.Add(total, multiply(d, d))
	}
	return total
}

// covers says whether the grid is as near to exact numbers as it says, and not far.
func covers(t *testing.T, g grid, exact []*big.Rat, what string) {
	t.Helper()
	off := g.off.fraction()
	for _, m := range g.m {
		if magnitude(m) > lift {
			t.Fatal(what, "leaves the grid")
		}
	}
	if distance2(g, exact).Cmp(multiply(off, off)) > 0 {
		t.Fatal(what, "is farther off than it says")
	}
}

func wild() float64 {
	return math.Ldexp(source.NormFloat64(), source.Intn(120)-60)
}

func fractions(t *tensor) []*big.Rat {
	x := make([]*big.Rat, t.length())
	for i := range x {
		x[i] = t.fraction(i)
	}
	return x
}

func TestGridsCoverTheirTensors(t *testing.T) {
	for n := 0; n < 300; n++ {
		size := 1 + source.Intn(20)
		x, y, k := make([]float64, size), make([]float64, size), make([]int64, size)
		for i := range x {
			x[i], y[i], k[i] = wild(), wild(), int64(source.Uint64())>>source.Intn(64)
		}
		if n%3 == 0 {
			x[0], y[0], k[0] = 5e-324, math.MaxFloat64, math.MinInt64
		}
		a, b, c := doubles(x, size), doubles(y, size), integers(k, size)
		covers(t, a.onGrid(), fractions(a), "a tensor")
		covers(t, c.onGrid(), fractions(c), "whole numbers")
		sum, product := fractions(a), fractions(a)
		index := make([]int32, size)
		for i, v := range fractions(b) {
			sum[i].Add(sum[i], v)
			product[i].Mul(product[i], v)
			index[i] = int32(i)
		}
		covers(t, together(a.onGrid(), b.onGrid()), sum, "a sum")
		s := scaledBy(a.onGrid(), b.onGrid(), index)
		_, high := b.extremes()
		low, _ := b.extremes()
		s.off = s.off.plus(above(larger(high, new(big.Rat).Neg(low))).times(a.onGrid().off))
		covers(t, s, product, "a product")
		third := fractions(a)
		for i := range third {
			third[i].Quo(third[i], whole(3))
		}
		covers(t, divided(a.onGrid(), 3), third, "a third")
	}
}

func TestExtremesAreExact(t *testing.T) {
	low, high := integers([]int64{1<<62 + 1, 1 << 62, -1 << 63, -1<<63 + 1}, 4).extremes()
	if low.Cmp(whole(-1<<63)) != 0 || high.Cmp(whole(1<<62+1)) != 0 {
		t.Fatal(low, high)
	}
	low, high = doubles([]float64{0.1, -5e-324, 0}, 3).extremes()
	if low.Cmp(times2(whole(-1), -1074)) != 0 || high.Cmp(new(big.Rat).SetFloat64(0.1)) != 0 {
		t.Fatal(low, high)
	}
}

// refused says whether f panics with a refusal.
func refused(f func()) (yes bool) {
	defer func() {
		if failure := recover(); failure != nil {
			_, yes = failure.(refusal)
		}
	}()
	f()
	return false
}

func file(header string, data string) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(b, header...), data...)
}

func TestFilesOfTensorsAreReadStrictly(t *testing.T) {
	good := []string{
		`{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[],"data_offsets":[2,3]}}`,
		`{"__metadata__":{"x":"y"},"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}}   `,
	}
	for _, h := range good {
		if refused(func() { readTensors(file(h, "abc")) }) {
			t.Error("refused", h)
		}
	}
	bad := []string{
		``, `[]`, `{}`, `{"a":null}`,
		`{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}`,
		`{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}`,
		`{"a":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}`,
		`{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}`,
		`{"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}}`,
		`{"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},"b":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}}`,
		`{"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3],"more":1}}`,
		`{"a":{"dtype":"u8","shape":[3],"data_offsets":[0,3]}}`,
		`{"a":{"dtype":"U8","Shape":[3],"data_offsets":[0,3]}}`,
		`{"a":{"dtype":"U8","shape":[3.0],"data_offsets":[0,3]}}`,
		`{"a":{"dtype":"U8","shape":[-3],"data_offsets":[0,3]}}`,
		`{"a":{"dtype":"U8","shape":[67108865,0],"data_offsets":[0,0]},"b":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}}`,
		`{"a":{"dtype":"U8","shape":[3],"data_offsets":[3,0]}}`,
		`{"a":{"dtype":"I64","shape":[3],"data_offsets":[0,3]}}`,
	}
	for _, h := range bad {
		if !refused(func() { readTensors(file(h, "abc")) }) {
			t.Error("read", h)
		}
	}
	nan := `{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}`
	if !refused(func() { readTensors(file(nan, "\x00\x00\xc0\x7f")) }) || !refused(func() { readTensors(file(nan, "\x00\x00\x80\xff")) }) {
		t.Error("numbers that are not finite")
	}
	if !refused(func() { readTensors([]byte{255, 255, 255, 255, 255, 255, 255, 255, '{', '}'}) }) {
		t.Error("a header longer than all")
	}
}
