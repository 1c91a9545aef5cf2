package main

import (
	"bytes"
	"math"
	"math/big"
	"strconv"
	"testing"
)

var bendsOf = map[string][2]float64{"softplus": {0, 0.25}, "tanh": {-0.77, 0.77}, "sigmoid": {-0.097, 0.097}}

// headed is a head in front of which there is nothing, with bends of its own or, where they are nil, some that hold.
type headed struct {
	kind                    string
	inputs, hidden, outputs int
	u, bias, v, more, bends []float64
	inner, last             *dense
	b                       *bundle
}

func matrixOf(b *bundle, name string, w []float64, rows, cols int, bias []float64) *dense {
	b.tensors[name] = doubles(w, rows, cols)
	norm := 0.0
	for _, x := range w {
		norm = math.Max(norm, math.Abs(x)*math.Sqrt(float64(len(w)))*2)
	}
	r := record{"map": "dense", "norm": digitsOf(norm), "weight": name, "bias": nil}
	if bias != nil {
		b.tensors[name+" bias"] = doubles(bias, rows)
		r["bias"] = name + " bias"
	}
	d, _ := b.readDense(r, []int{cols}, name)
	return d
}

func digitsOf(x float64) string { return strconv.FormatFloat(x, 'x', -1, 64) }

func newHead(kind string, inputs, hidden, outputs int) *headed {
	h := &headed{kind: kind, inputs: inputs, hidden: hidden, outputs: outputs}
	h.u, h.bias, h.v, h.more = normals(hidden*inputs), normals(hidden), normals(outputs*hidden), normals(outputs)
	h.prepare()
	h.bends = make([]float64, outputs*outputs)
	for i := 0; i < outputs; i++ {
		for j := 0; j < outputs; j++ {
			h.bends[i*outputs+j] = h.bend(i, j) * (1 + 0x1p-30)
		}
	}
	return h
}

// bend is the squared norm by floating-point numbers.
func (h *headed) bend(i, j int) float64 {
	s, t := bendsOf[h.kind][0], bendsOf[h.kind][1]
	w := make([]float64, len(h.u))
	for k := 0; k < h.hidden; k++ {
		d := h.v[i*h.hidden+k] - h.v[j*h.hidden+k]
		a := math.Sqrt(math.Max(0, math.Max(-d*s, -d*t)))
		for c := 0; c < h.inputs; c++ {
			w[k*h.inputs+c] = a * h.u[k*h.inputs+c]
		}
	}
	if dotFloats(w, w) == 0 {
		return 0
	}
	n := longest(w, h.hidden, h.inputs)
	return n * n
}

func (h *headed) prepare() {
	h.b = &bundle{tensors: map[string]*tensor{}, to: printer{&bytes.Buffer{}}}
	h.inner = matrixOf(h.b, "u", h.u, h.hidden, h.inputs, h.bias)
	h.last = matrixOf(h.b, "v", h.v, h.outputs, h.hidden, h.more)
	h.b.blocks = []block{{bound: whole(1), bent: &bent{h.inner, curves[h.kind]}}}
	h.b.last = []linear{h.last}
}

func (h *headed) read(asked ...[2]int) *curvature {
	h.b.tensors["bends"] = doubles(h.bends, h.outputs, h.outputs)
	return h.b.readCurvature(record{"kind": "curvature", "bends": "bends"}, h.outputs, asked)
}

// parts are the margin, the gradient's length and the bend at a point, by floating-point numbers.
func (h *headed) parts(x []float64, i, j int) (margin, steep, bend float64) {
	g := make([]float64, h.inputs)
	margin = h.more[i] - h.more[j]
	for k := 0; k < h.hidden; k++ {
		row := h.u[k*h.inputs : (k+1)*h.inputs]
		z := long(h.bias[k] + dotFloats(row, x))
		d := h.v[i*h.hidden+k] - h.v[j*h.hidden+k]
		value, _ := reference[h.kind](z).Float64()
		slope, _ := derivatives[h.kind](z).Float64()
		margin += d * value
		for c := range g {
			g[c] += slope * d * row[c]
		}
	}
	return margin, math.Sqrt(dotFloats(g, g)), h.bends[i*h.outputs+j]
}

func TestBendsAreDecidedClosely(t *testing.T) {
	defer seeded()()
	for _, kind := range []string{"softplus", "tanh", "sigmoid"} {
		for n := 0; n < 6; n++ {
			h := newHead(kind, 1+source.Intn(9), 1+source.Intn(20), 2+source.Intn(3))
			i, j := 0, 1+source.Intn(h.outputs-1)
			right := h.bends[i*h.outputs+j]
			for _, factor := range []float64{1, 2, 1e30, 1 - 1e-7, 0.5, 0} {
				h.bends[i*h.outputs+j] = right * factor
				if refused(func() { h.read([2]int{i, j}) }) != (factor < 1 && right > 0) {
					t.Error(kind, h, factor)
				}
			}
			h.bends[i*h.outputs+j] = 0
			h.read([2]int{j, i}) // nobody asks for the other
			h.bends[0] = -5e-324
			if !refused(func() { h.read() }) {
				t.Error("a negative number")
			}
		}
	}
}

// Rows of very different lengths: the matrix is on a grid only after it is weighted.
func TestBendsOfUnevenRows(t *testing.T) {
	defer seeded()()
	h := newHead("softplus", 2, 2, 2)
	h.u = []float64{0x1p300, 0, 0, 0x1p-300}
	h.v = []float64{0, 0, 0x1p-600, 0x1p600}
	h.prepare()
	for _, factor := range []float64{1 - 1e-9, 1 + 1e-9} {
		h.bends = []float64{0, 0.25 * factor, 1, 0}
		if refused(func() { h.read([2]int{0, 1}) }) != (factor < 1) {
			t.Error(factor)
		}
	}
}

func TestRadiiOfHeadsAreDecidedClosely(t *testing.T) {
	defer seeded()()
	for _, kind := range []string{"softplus", "tanh", "sigmoid"} {
		for n := 0; n < 20; n++ {
			h := newHead(kind, 1+source.Intn(6), 1+source.Intn(20), 2)
			x := normals(h.inputs)
			own := 0
			if margin, _, _ := h.parts(x, 0, 1); margin < 0 {
				own = 1
			}
			c := h.read([2]int{own, 1 - own})
			margin, steep, bend := h.parts(x, own, 1-own)
			if margin < 1e-3 { // so near, floating-point numbers do not tell
				continue
			}
			// The root of margin - steep p - bend p^2 / 2.
			p := 2 * margin / (steep + math.Sqrt(steep*steep+2*bend*margin))
			g := doubles(x, h.inputs).onGrid()
			for _, factor := range []float64{1e-300, 0.5, 1 - 1e-9, 1 + 1e-9, 2, 1e300} {
				if c.shows(g, own, exactly(p*factor)) != (factor < 1) {
					t.Error(kind, h, factor)
				}
				if c.shows(g, 1-own, exactly(p*factor)) {
					t.Error("the smaller output")
				}
			}
			c.reach = whole(3)
			if !c.shows(g, own, exactly(p*(1-1e-9)/3)) || c.shows(g, own, exactly(p*(1+1e-9)/3)) {
				t.Error("what is before counts")
			}
			c.reach = whole(1)
			// Features that are off take away from the margin and add to the gradient.
			g.off = above(exactly(p * 1e-3))
			if c.shows(g, own, exactly(p*(1-1e-4))) {
				t.Error("features that are off")
			}
		}
	}
}

// A tie, with numbers that are exact: no radius at all.
func TestTiesHaveNoRadius(t *testing.T) {
	defer seeded()()
	h := newHead("tanh", 2, 2, 2)
	h.u, h.bias, h.v, h.more = []float64{1, 0, 0, 1}, []float64{0, 0}, []float64{1, 2, 3, 4}, []float64{1, 1}
	h.prepare()
	h.bends = []float64{99, 99, 99, 99}
	c := h.read([2]int{0, 1}, [2]int{1, 0})
	g := doubles([]float64{0, 0}, 2).onGrid()
	if c.shows(g, 0, exactly(5e-324)) || c.shows(g, 1, exactly(5e-324)) {
		t.Error("a tie")
	}
}

func TestSteepnessIsAboveTheGradient(t *testing.T) {
	defer seeded()()
	for _, kind := range []string{"softplus", "tanh", "sigmoid"} {
		for n := 0; n < 30; n++ {
			h := newHead(kind, 1+source.Intn(6), 1+source.Intn(10), 2)
			x := normals(h.inputs)
			hidden := h.inner.apply(doubles(x, h.inputs).onGrid())
			_, steep, _ := h.parts(x, 0, 1)
			c := h.read()
			found, _ := c.steepness(c.inner.curve.slopes(hidden), 0, 1).Float64()
			if found < steep*(1-1e-13) || found > steep*(1+1e-10)+1e-10 {
				t.Error(kind, steep, found)
			}
			// Hidden numbers that are elsewhere, as far as the grid says.
			moved := normals(h.inputs)
			length := 0.0
			for k := range moved {
				moved[k] = x[k] + moved[k]*0.1
				length += (moved[k] - x[k]) * (moved[k] - x[k])
			}
			hidden.off = hidden.off.plus(above(h.inner.norm).times(above(exactly(math.Sqrt(length)))))
			_, steep, _ = h.parts(moved, 0, 1)
			if found, _ = c.steepness(c.inner.curve.slopes(hidden), 0, 1).Float64(); found < steep {
				t.Error(kind, "elsewhere", steep, found)
			}
		}
	}
}

func TestWhatHasNoCurvature(t *testing.T) {
	defer seeded()()
	good := func() *headed { return newHead("softplus", 2, 3, 3) }
	for name, change := range map[string]func(h *headed){
		"nothing before":   func(h *headed) { h.b.blocks = nil },
		"another block":    func(h *headed) { h.b.blocks[0].bent = nil },
		"a block after":    func(h *headed) { h.b.blocks = append(h.b.blocks, block{bound: whole(1)}) },
		"no last map":      func(h *headed) { h.b.last = nil },
		"two last maps":    func(h *headed) { h.b.last = append(h.b.last, h.last) },
		"a last map not V": func(h *headed) { h.b.last[0] = &take{} },
	} {
		h := good()
		h.read()
		change(h)
		if !refused(func() { h.read() }) {
			t.Error(name)
		}
	}
	h := good()
	for _, bad := range []*tensor{doubles(make([]float64, 9), 9), doubles(make([]float64, 9), 3, 3, 1), doubles(make([]float64, 6), 2, 3), doubles(make([]float64, 4), 2, 2), doubles(nil, 0, 3), doubles([]float64{1}), integers(make([]int64, 9), 3, 3)} {
		h.b.tensors["bad"] = bad
		if !refused(func() { h.b.readCurvature(record{"kind": "curvature", "bends": "bad"}, 3, nil) }) {
			t.Error(bad.shape)
		}
	}
	for _, v := range []record{{"kind": "curvature"}, {"kind": "curvature", "bends": nil}, {"kind": "curves", "bends": "bends"}, {"kind": "curvature", "bends": "bends", "more": nil}, {"bends": "bends"}} {
		if !refused(func() { h.b.readCurvature(v, 3, nil) }) {
			t.Error(v)
		}
	}
}

func TestOnlyBareBlocksAreBent(t *testing.T) {
	defer seeded()()
	h := newHead("tanh", 2, 2, 2)
	u := record{"map": "dense", "norm": "0x1p+10", "weight": "u", "bias": "u bias"}
	plain := record{"inner": []any{u}, "activation": record{"kind": "tanh"}, "outer": []any{}, "skip": nil, "bound": "0x1p+20"}
	read := func(changes record) *bent {
		r := record{}
		for _, from := range []record{plain, changes} {
			for k, v := range from {
				r[k] = v
			}
		}
		part, _ := h.b.readBlock(r, []int{2}, "it")
		return part.bent
	}
	if read(record{}) == nil {
		t.Error("the block itself")
	}
	for _, changes := range []record{
		{"skip": []any{}}, {"outer": []any{u}}, {"inner": []any{u, u}}, {"inner": []any{}},
		{"activation": record{"kind": "elu"}}, {"activation": record{"kind": "silu"}},
		{"activation": record{"kind": "sort", "size": digits("2"), "descending": true}},
	} {
		if read(changes) != nil {
			t.Error(changes)
		}
	}
	step := record{"inner": []any{u}, "activation": record{"kind": "tanh"}, "step": "0x1p-30", "bound": "0x1p+20"}
	if part, _ := h.b.readBlock(step, []int{2}, "it"); part.bent != nil {
		t.Error("a step")
	}
}

func TestPairsAreAskedOnce(t *testing.T) {
	defer seeded()()
	radius := []*big.Rat{whole(1), whole(0), whole(2), whole(1)}
	found := asked(3, []int{2, 1, 2, 0}, radius)
	if len(found) != 4 || found[0] != [2]int{2, 0} || found[1] != [2]int{2, 1} || found[2] != [2]int{0, 1} || found[3] != [2]int{0, 2} {
		t.Error(found)
	}
}

func TestWeightsAreRoundedUpwards(t *testing.T) {
	defer seeded()()
	for _, kind := range []string{"softplus", "tanh", "sigmoid"} {
		ends := bendsOf[kind]
		for n := 0; n < 300; n++ {
			h := newHead(kind, 1, 1, 2)
			h.v = []float64{wild(), wild()}
			h.prepare()
			m, e := h.read().weight(0, 1, 0)
			d := new(big.Rat).Sub(exactly(h.v[0]), exactly(h.v[1]))
			square := new(big.Rat)
			for k := range ends {
				end := curves[kind].bend
				if k == 0 && curves[kind].flat {
					end = new(big.Rat)
				} else if k == 0 {
					end = new(big.Rat).Neg(end)
				}
				square = larger(square, multiply(new(big.Rat).Neg(d), end))
			}
			found := times2(multiply(whole(m), whole(m)), 2*e)
			more := multiply(square, new(big.Rat).Add(whole(1), power(-57)))
			if found.Cmp(square) < 0 || found.Cmp(more) > 0 {
				t.Fatal(kind, h.v, m, e)
			}
			x := exactly(math.Abs(wild()))
			r := rootDown(x)
			if r = multiply(r, r); r.Cmp(x) > 0 || multiply(r, new(big.Rat).Add(whole(1), power(-90))).Cmp(x) < 0 {
				t.Fatal(x, r)
			}
		}
	}
}

// With numbers that are all exact, what is equal is not larger.
func TestHeadsAskForMore(t *testing.T) {
	defer seeded()()
	h := newHead("tanh", 2, 2, 2)
	h.u, h.bias, h.more, h.bends = make([]float64, 4), make([]float64, 2), []float64{1, 1}, make([]float64, 4)
	h.prepare()
	g := doubles([]float64{1, 2}, 2).onGrid()
	if h.read().shows(g, 0, whole(1)) {
		t.Error("a margin of 0")
	}
	straight := (&bundle{}).straight(func(i, j int) *big.Rat { return whole(2) })
	x := grid{[]int64{4, 0}, 0, nothing()}
	if straight(x, 0, whole(2)) || !straight(x, 0, exactly(1.99)) || straight(x, 1, exactly(5e-324)) {
		t.Error("a straight head")
	}
	h.b.blocks = []block{{bound: whole(3)}, {bound: whole(5)}, h.b.blocks[0]}
	if h.read().reach.Cmp(whole(15)) != 0 {
		t.Error("bounds before")
	}
}

func TestWeightedMatricesCoverTheirNumbers(t *testing.T) {
	defer seeded()()
	for n := 0; n < 50; n++ {
		h := newHead("sigmoid", 3, 4, 2)
		c := h.read()
		a, off := c.weighted(0, 1)
		exact := []*big.Rat{}
		for k := 0; k < 4; k++ {
			m, e := c.weight(0, 1, k)
			for i := 0; i < 3; i++ {
				exact = append(exact, multiply(times2(whole(m), e), exactly(h.u[3*k+i])))
			}
		}
		covers(t, grid{a.m, a.e, off}, exact, "a weighted matrix")
	}
}
