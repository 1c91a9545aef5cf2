package main

import (
	"math"
	"testing"
)

func TestLevels(t *testing.T) {
	object := func(kind, numbers, sums any) record {
		return record{"kind": kind, "numbers": numbers, "sums": sums}
	}
	if readLevel("real") != nil {
		t.Error("real")
	}
	for _, pair := range [][2]string{{"float32", "float32"}, {"float32", "float64"}, {"float64", "float64"}} {
		if l := readLevel(object("float", pair[0], pair[1])); l.numbers.name != pair[0] || l.sums.name != pair[1] {
			t.Error(pair)
		}
	}
	more := object("float", "float32", "float32")
	more["more"] = nil
	for _, bad := range []any{nil, "float", "Real", digits("1"), true, []any{}, record{}, more, record{"kind": "float", "numbers": "float32"},
		object("real", "float32", "float32"), object("float", "float64", "float32"), object("float", "float16", "float32"), object("float", "float32", "float16"),
		object(nil, "float32", "float32"), object("float", nil, "float32"), object("float", "float32", digits("32"))} {
		if !refused(func() { readLevel(bad) }) {
			t.Error("read", bad)
		}
	}
}

func TestNumbersOfFormats(t *testing.T) {
	known := []float64{0, math.Copysign(0, -1), 1, -0x1p-126, 0x1.fffffep127, 0x1.000002p0}
	only := []float64{0x1p-127, 0x1.8p-149, 0x1p-149, 0x1.000001p0, 0x1p128, 0x1.ffffffp127, 1e-300, 0x1p-1022, math.MaxFloat64, 0.1}
	for _, x := range known {
		if !formats["float32"].has(x) || !formats["float64"].has(x) {
			t.Error(x)
		}
	}
	for _, x := range only {
		if formats["float32"].has(x) || !formats["float64"].has(x) {
			t.Error(x)
		}
	}
	if formats["float64"].has(0x1p-1023) || formats["float64"].has(5e-324) {
		t.Error("a subnormal number")
	}
}

// All floating-point tensors and a step are of numbers of the level; methods, curvature and smooth functions are unknown.
func TestWhatLevelFloatRefuses(t *testing.T) {
	for _, l := range []*level{nil, single(), {formats["float64"], formats["float64"]}} {
		for _, x := range []float64{0.5, 0.1, 0x1p-140, 0x1p-1030} {
			numbers := func() {
				b := &bundle{level: l, tensors: map[string]*tensor{"a": doubles([]float64{1, x, 2}, 3), "b": integers([]int64{1<<62 + 1}, 1)}}
				b.demandNumbers()
			}
			step := func() {
				m := newBuilder(l)
				d := record{"map": "dense", "norm": digitsOf(0), "weight": m.tensor(doubles(make([]float64, 6), 2, 3)), "bias": nil}
				m.b.readBlock(record{"inner": []any{d}, "activation": record{"kind": "leaky-relu", "slopes": m.tensor(doubles([]float64{0}, 1))}, "step": digitsOf(x), "bound": digitsOf(1)}, []int{3}, "it")
			}
			if wrong := l != nil && !l.numbers.has(x); refused(numbers) != wrong || refused(step) != wrong {
				t.Error(l, x)
			}
		}
	}
	for name, read := range map[string]func(*builder, string){
		"dense": func(m *builder, w string) {
			m.read(record{"map": "dense", "norm": digitsOf(9), "weight": w, "bias": nil}, 3)
		},
		"bias": func(m *builder, w string) {
			m.read(record{"map": "dense", "norm": digitsOf(99), "weight": m.random(1, 3, 3), "bias": w}, 3)
		},
		"kernel": func(m *builder, w string) {
			r := m.kernel(1, 1, 1, 3, 1, 1, false, nil)
			r["weight"] = w
			m.read(r, 1, 4, 4)
		},
		"factor": func(m *builder, w string) {
			m.read(record{"map": "scale", "norm": digitsOf(9), "factor": w, "shift": nil}, 1, 3, 1, 3)
		},
		"shift": func(m *builder, w string) {
			m.read(record{"map": "scale", "norm": digitsOf(9), "factor": m.random(1, 1), "shift": w}, 1, 3, 1, 3)
		},
		"slopes": func(m *builder, w string) { m.leaky(w, 1, 3, 1, 3) },
		"samples": func(m *builder, w string) {
			m.b.input, m.b.output, m.b.product = []int{3}, []int{3}, whole(1)
			m.b.readSamples(record{"inputs": w, "predictions": []any{written(0)}, "radii": []any{"0x0p+0"}, "head": "network"})
		},
	} {
		shape := map[string][]int{"dense": {1, 3}, "bias": {3}, "samples": {1, 3}, "kernel": {1, 1, 1, 3}}[name]
		if shape == nil {
			shape = []int{3}
		}
		m := newBuilder(nil)
		whole, floating := m.tensor(integers([]int64{1, 0, 1}, shape...)), m.tensor(doubles([]float64{1, 0, 1}, shape...))
		if !refused(func() { read(m, whole) }) || refused(func() { read(m, floating) }) {
			t.Error(name, "of whole numbers")
		}
	}
	for _, kind := range names {
		read := func(l *level) func() {
			return func() { newBuilder(l).activation(record{"kind": kind}, 3) }
		}
		if refused(read(nil)) || !refused(read(single())) {
			t.Error(kind)
		}
	}
	m := newBuilder(single())
	if !refused(func() { m.b.readHead(record{"kind": "curvature", "bends": "a"}, 2, nil, nil) }) {
		t.Error("curvature")
	}
	if !refused(func() {
		m.b.readNetwork(record{"blocks": []any{}, "last": []any{}, "method": record{"kind": "multipliers", "weights": []any{}}})
	}) {
		t.Error("a method")
	}
}

func TestOverflowIsRefused(t *testing.T) {
	for _, l := range []*level{single(), mixedUp(), {formats["float64"], formats["float64"]}} {
		run := func(w, x []float64) bool {
			m := newBuilder(l)
			p := m.read(record{"map": "dense", "norm": digitsOf(math.MaxFloat64), "weight": m.tensor(doubles(w, 1, len(w))), "bias": nil}, len(w))
			return !refused(func() { p.executed(l, execution{doubles(x, len(x)).onGrid(), nothing(), nothing()}) })
		}
		n := l.numbers.limit
		big, small := math.Ldexp(1, n/2), math.Ldexp(1, n/2-2)
		if !run([]float64{small}, []float64{big}) || run([]float64{big}, []float64{big}) {
			t.Error(l.terms(), "a result")
		}
		// Products that cancel are numbers on the way.
		if run([]float64{big, -big}, []float64{big, big}) {
			t.Error(l.terms(), "a sum")
		}
	}
	long := single()
	if !refused(func() { long.cost(&sums{norm: nothing(), total: nothing(), terms: 1<<23 + 1}, 1, 1) }) || refused(func() { mixedUp().cost(&sums{norm: nothing(), total: nothing(), terms: 1 << 24}, 1, 1) }) {
		t.Error("the number of terms")
	}
}
