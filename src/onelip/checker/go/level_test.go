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

// Every tensor of a network, and a step, is of numbers of the level; methods, curvature and smooth functions are unknown.
func TestWhatLevelFloatRefuses(t *testing.T) {
	long := func(m *builder, shape ...int) string {
		x := normals(entries(shape, ""))
		for i := range x {
			x[i] = 0.5
		}
		x[len(x)-1] = 0.1
		return m.tensor(doubles(x, shape...))
	}
	halves := func(m *builder, shape ...int) string {
		name := long(m, shape...)
		w := m.b.tensors[name]
		m.b.tensors[name] = doubles(append(normals(0), make([]float64, w.length())...), shape...)
		return name
	}
	type tensors func(*builder, ...int) string
	for name, read := range map[string]func(m *builder, f tensors){
		"dense": func(m *builder, f tensors) {
			m.read(record{"map": "dense", "norm": digitsOf(9), "weight": f(m, 2, 3), "bias": nil}, 3)
		},
		"bias": func(m *builder, f tensors) {
			m.read(record{"map": "dense", "norm": digitsOf(9), "weight": halves(m, 2, 3), "bias": f(m, 2)}, 3)
		},
		"kernel": func(m *builder, f tensors) {
			r := m.kernel(1, 1, 1, 3, 1, 1, false, nil)
			r["weight"] = f(m, 1, 1, 3, 3)
			m.read(r, 1, 4, 4)
		},
		"factor": func(m *builder, f tensors) {
			m.read(record{"map": "scale", "norm": digitsOf(9), "factor": f(m, 3), "shift": nil}, 3)
		},
		"shift": func(m *builder, f tensors) {
			m.read(record{"map": "scale", "norm": digitsOf(9), "factor": halves(m, 3), "shift": f(m, 3)}, 3)
		},
		"slopes": func(m *builder, f tensors) { m.leaky(f(m, 3), 3) },
		"samples": func(m *builder, f tensors) {
			m.b.input, m.b.output, m.b.product = []int{3}, []int{3}, whole(1)
			m.b.readSamples(record{"inputs": f(m, 1, 3), "predictions": []any{written(0)}, "radii": []any{"0x0p+0"}, "head": "network"})
		},
		"step": func(m *builder, f tensors) {
			step := m.b.tensors[f(m, 1)].double(0)
			d := record{"map": "dense", "norm": digitsOf(0), "weight": halves(m, 2, 3), "bias": nil}
			m.b.readBlock(record{"inner": []any{d}, "activation": record{"kind": "leaky-relu", "slopes": halves(m, 1)}, "step": digitsOf(step), "bound": digitsOf(1)}, []int{3}, "it")
		},
	} {
		for _, l := range []*level{nil, single(), {formats["float64"], formats["float64"]}} {
			fails := refused(func() { read(newBuilder(l), long) })
			if fails != (l != nil && l.numbers.name == "float32") || refused(func() { read(newBuilder(l), halves) }) {
				t.Error(name, l)
			}
		}
	}
	for _, kind := range []string{"softplus", "tanh", "sigmoid", "elu", "silu"} {
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
		n, s := l.numbers.limit, l.sums.limit
		big, small := math.Ldexp(1, n/2), math.Ldexp(1, n/2-2)
		if !run([]float64{small}, []float64{big}) || run([]float64{big}, []float64{big}) {
			t.Error(l.terms(), "a result")
		}
		// Products that cancel are numbers on the way.
		if run([]float64{big, -big}, []float64{big, big}) != (s > n) {
			t.Error(l.terms(), "a sum")
		}
	}
	long := single()
	if !refused(func() { long.cost(&sums{norm: nothing(), total: nothing(), terms: 1 << 23}, 1, 1) }) || refused(func() { mixedUp().cost(&sums{norm: nothing(), total: nothing(), terms: 1 << 24}, 1, 1) }) {
		t.Error("the number of terms")
	}
}
