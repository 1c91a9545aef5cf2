package main

import (
	"bytes"
	"math"
	"sort"
	"strconv"
	"testing"
)

func single() *level  { return &level{formats["float32"], formats["float32"]} }
func mixedUp() *level { return &level{formats["float32"], formats["float64"]} }

// operation is an exact result as an adversary rounds it: by all that is allowed, upwards or downwards, or as hardware does.
type operation func(exact float64) float64

func adversary(f *format) operation {
	u := math.Ldexp(0.999, -f.digits)
	switch source.Intn(3) {
	case 0:
		return func(x float64) float64 { return x + u*math.Abs(x) }
	case 1:
		return func(x float64) float64 { return x * (1 + float64(source.Intn(2)*2-1)*u) }
	}
	if f.digits == 24 {
		return func(x float64) float64 { return float64(float32(x)) }
	}
	return func(x float64) float64 { return x }
}

// added is a sum of products in some order and by some tree, with products that are fused or not.
func added(terms []float64, bias float64, op operation) float64 {
	terms = append([]float64{}, terms...)
	switch source.Intn(4) {
	case 0: // as large on the way as may be
		sort.Sort(sort.Reverse(sort.Float64Slice(terms)))
	case 1:
		source.Shuffle(len(terms), func(i, j int) { terms[i], terms[j] = terms[j], terms[i] })
	case 2: // a random tree
		nodes := []float64{bias}
		for _, t := range terms {
			nodes = append(nodes, op(t))
		}
		for len(nodes) > 1 {
			i := source.Intn(len(nodes) - 1)
			nodes[i] = op(nodes[i] + nodes[i+1])
			nodes = append(nodes[:i+1], nodes[i+2:]...)
		}
		return nodes[0]
	}
	fused := source.Intn(2) == 0
	sum := bias
	for _, t := range terms {
		if t == 0 {
			continue
		}
		if !fused {
			t = op(t)
		}
		if sum == 0 {
			sum = t // the first product is alone
			if fused {
				sum = op(t)
			}
		} else {
			sum = op(sum + t)
		}
	}
	return sum
}

// machine executes parts of a network in float64, with the roundings of a level, or with none.
type machine struct {
	l        *level // nil for exact
	op, sums operation
	flushes  bool // subnormal numbers, wherever they are
}

func exactMachine() *machine {
	same := func(x float64) float64 { return x }
	return &machine{nil, same, same, false}
}

func newMachine(l *level) *machine {
	return &machine{l, adversary(l.numbers), adversary(l.sums), false}
}

func (m *machine) each(x []float64, f func(i int, x float64) float64) []float64 {
	y := make([]float64, len(x))
	for i := range x {
		y[i] = f(i, x[i])
	}
	return y
}

// seen is a number as somebody reads it.
func (m *machine) seen(x float64) float64 {
	if m.flushes && math.Abs(x) < 0x1p-126 && source.Intn(2) == 0 {
		return 0
	}
	return x
}

func (m *machine) weighted(rows [][]float64, bias func(i int) float64, x []float64) []float64 {
	y := make([]float64, len(rows))
	for i, row := range rows {
		terms := m.each(row, func(j int, w float64) float64 { return w * m.seen(x[j]) })
		if m.l == nil {
			y[i] = bias(i)
			for _, t := range terms {
				y[i] += t
			}
			continue
		}
		y[i] = added(terms, bias(i), m.sums)
		if m.l.sums != m.l.numbers {
			y[i] = m.op(y[i])
		}
	}
	return y
}

func biasOf(t *tensor, entries int) func(i int) float64 {
	return func(i int) float64 {
		if t == nil {
			return 0
		}
		return t.double(i / (entries / t.length()))
	}
}

func rowsOf(a []float64, rows, cols int, turned bool) [][]float64 {
	n, k := rows, cols
	if turned {
		n, k = cols, rows
	}
	all := make([][]float64, n)
	for i := range all {
		all[i] = make([]float64, k)
		for j := range all[i] {
			if turned {
				all[i][j] = a[j*cols+i]
			} else {
				all[i][j] = a[i*cols+j]
			}
		}
	}
	return all
}

// matrixRows is the weights of a map or of its adjoint, and the bias of the map.
func matrixRows(p linear, turned bool) ([][]float64, *tensor) {
	switch p := p.(type) {
	case *dense:
		a := make([]float64, p.weight.length())
		for i := range a {
			a[i] = p.weight.double(i)
		}
		return rowsOf(a, p.a.rows, p.a.cols, turned), p.bias
	case *convolved:
		a, rows, cols := full(p.c)
		return rowsOf(a, rows, cols, turned), p.bias
	}
	panic("no sums")
}

func (m *machine) linear(p linear, x []float64) []float64 {
	zero := func(int) float64 { return 0 }
	switch p := p.(type) {
	case *dense, *convolved:
		rows, bias := matrixRows(p, false)
		return m.weighted(rows, biasOf(bias, len(rows)), x)
	case *adjoint:
		rows, _ := matrixRows(p.of, true)
		return m.weighted(rows, biasOf(p.bias, len(rows)), x)
	case *take:
		y := make([]float64, entries(p.shape, ""))
		for i := range y {
			if p.index == nil {
				y[i] = x[i]
			} else if p.index[i] >= 0 {
				y[i] = x[p.index[i]]
			}
		}
		return y
	case *scale:
		return m.each(x, func(i int, v float64) float64 {
			f := math.Ldexp(float64(p.factor.m[p.at.places()[i]]), p.factor.e)
			if p.shift == nil {
				return m.op(f * v)
			}
			s := p.shift.double(int(p.moved.places()[i]))
			if source.Intn(2) == 0 {
				return m.op(f*v + s)
			}
			return m.op(m.op(f*v) + s)
		})
	case *exponential:
		rows, _ := matrixRows(p.of, false)
		u := x
		for i := p.terms - 1; i >= 1; i-- {
			a := m.weighted(rows, zero, u)
			u = m.each(x, func(j int, v float64) float64 { return m.op(v + m.op(a[j]*m.op(1/float64(i)))) })
		}
		return u
	}
	panic("unknown")
}

func (m *machine) activation(a *activation, x []float64) []float64 {
	if a.rounded != nil {
		return m.each(x, func(i int, v float64) float64 {
			if v >= 0 {
				return v
			}
			slope, _ := a.slope(i).Float64()
			if math.Abs(slope) == 1 {
				return slope * v
			}
			return m.op(slope * v)
		})
	}
	return floatsOf(a.apply(doubles(x, len(x)).onGrid())) // off by 2^-50 at most
}

func floatsOf(g grid) []float64 {
	y := make([]float64, len(g.m))
	for i, k := range g.m {
		y[i] = math.Ldexp(float64(k), g.e)
	}
	return y
}

// part is some of a network, by the checker and by a machine.
type part struct {
	checked  func(*level, execution) execution
	computed func(*machine, []float64) []float64
}

func mapPart(p linear) part {
	return part{p.executed, func(m *machine, x []float64) []float64 { return m.linear(p, x) }}
}

func activationPart(a *activation) part {
	return part{func(l *level, x execution) execution { return l.activated(a, x) }, func(m *machine, x []float64) []float64 { return m.activation(a, x) }}
}

func chained(parts ...part) part {
	return part{func(l *level, x execution) execution {
		for _, p := range parts {
			x = p.checked(l, x)
		}
		return x
	}, func(m *machine, x []float64) []float64 {
		for _, p := range parts {
			x = p.computed(m, x)
		}
		return x
	}}
}

func skipPart(a, b part) part {
	return part{func(l *level, x execution) execution { return l.together(a.checked(l, x), b.checked(l, x)) }, func(m *machine, x []float64) []float64 {
		y, z := a.computed(m, x), b.computed(m, x)
		return m.each(y, func(i int, v float64) float64 { return m.op(v + z[i]) })
	}}
}

func stepPart(r reversible, a *activation, step, bound float64) part {
	return part{func(l *level, x execution) execution { return l.stepped(r, a, exactly(step), exactly(bound), x) }, func(m *machine, x []float64) []float64 {
		rows, _ := matrixRows(r, true)
		times := func(x []float64) []float64 {
			return m.each(x, func(_ int, v float64) float64 { return m.op(step * v) })
		}
		zero := func(int) float64 { return 0 }
		v := m.activation(a, m.linear(r, x))
		if source.Intn(2) == 0 {
			v = times(m.weighted(rows, zero, v))
		} else {
			v = m.weighted(rows, zero, times(v))
		}
		return m.each(x, func(i int, w float64) float64 { return m.op(w - v[i]) })
	}}
}

// builder reads records of maps whose tensors are random numbers of float32.
type builder struct {
	b *bundle
	n int
}

func newBuilder(l *level) *builder {
	return &builder{b: &bundle{tensors: map[string]*tensor{}, to: printer{&bytes.Buffer{}}, level: l}}
}

func singles(x []float64) []float64 {
	y := make([]float64, len(x))
	for i, v := range x {
		y[i] = float64(float32(v))
	}
	return y
}

func (m *builder) tensor(t *tensor) string {
	m.n++
	name := string(rune('a' + m.n))
	m.b.tensors[name] = t
	return name
}

func (m *builder) random(size float64, shape ...int) string {
	x := normals(entries(shape, ""))
	for i := range x {
		x[i] *= size
	}
	if len(x) > 3 {
		x[source.Intn(len(x))] = 0
	}
	return m.tensor(doubles(singles(x), shape...))
}

func (m *builder) read(r record, shape ...int) linear {
	p, _ := m.b.readMap(r, shape, "it")
	return p
}

// norm is that of a matrix.
func (m *builder) norm(name string) string {
	w := m.b.tensors[name]
	x, size := make([]float64, w.length()), 0.0
	for i := range x {
		size = math.Max(size, math.Abs(w.double(i)))
	}
	for i := range x {
		x[i] = w.double(i) / math.Max(size, 0x1p-1000)
	}
	return digitsOf(longest(x, w.shape[0], w.shape[1]) * (1 + 1e-9) * size)
}

func (m *builder) dense(rows, cols int) linear {
	w := m.random(1, rows, cols)
	return m.read(record{"map": "dense", "norm": m.norm(w), "weight": w, "bias": m.random(1, rows)}, cols)
}

func written(n int) digits { return digits(strconv.Itoa(n)) }

func two(a, b int) []any { return []any{written(a), written(b)} }

func (m *builder) kernel(out, in, groups, k, stride, pad int, circular bool, bias any) record {
	return record{"map": "convolution", "norm": digitsOf(8 * float64(out+in)), "weight": m.random(1, out, in/groups, k, k), "bias": bias, "stride": two(stride, 1), "padding": two(pad, pad),
		"dilation": two(1, 1), "groups": written(groups), "circular": circular, "witness": "kernel"}
}

// skew is a convolution that is the negative of its adjoint.
func (m *builder) skew(channels, k int) record {
	r := m.kernel(channels, channels, 1, k, 1, k/2, false, nil)
	w := normals(channels * channels * k * k)
	at := func(o, i, y, x int) *float64 { return &w[((o*channels+i)*k+y)*k+x] }
	for o := 0; o < channels; o++ {
		for i := 0; i < channels; i++ {
			for y := 0; y < k; y++ {
				for x := 0; x < k; x++ {
					v := float64(float32(0.1 * source.NormFloat64()))
					*at(o, i, y, x) = v
					*at(i, o, k-1-y, k-1-x) = -v
				}
			}
		}
	}
	for c := 0; c < channels; c++ {
		*at(c, c, k/2, k/2) = 0
	}
	r["weight"], r["norm"] = m.tensor(doubles(w, channels, channels, k, k)), digitsOf(3)
	return r
}

func (m *builder) activation(r record, shape ...int) part {
	return activationPart(m.b.readActivation(r, shape, "it"))
}

func (m *builder) leaky(slopes any, shape ...int) *activation {
	return m.b.readActivation(record{"kind": "leaky-relu", "slopes": slopes}, shape, "it")
}

// parts is one of every kind, with the shape of its input.
func (m *builder) parts() map[string]struct {
	part
	shape []int
} {
	type entry = struct {
		part
		shape []int
	}
	zero := m.tensor(doubles([]float64{0}, 1))
	step := m.dense(4, 5).(reversible)
	image := m.read(m.kernel(3, 2, 1, 3, 1, 1, true, m.random(1, 3)), 2, 4, 4).(reversible)
	image.(*convolved).c.norm = exactly(100)
	return map[string]entry{
		"dense":       {mapPart(m.dense(6, 7)), []int{7}},
		"one number":  {mapPart(m.dense(1, 1)), []int{1}},
		"convolution": {mapPart(m.read(m.kernel(4, 6, 2, 3, 2, 1, false, m.random(1, 4)), 6, 5, 4)), []int{6, 5, 4}},
		"circular":    {mapPart(m.read(m.kernel(2, 1, 1, 3, 2, 1, true, nil), 1, 5, 4)), []int{1, 5, 4}},
		"adjoint": {mapPart(m.read(record{"map": "adjoint", "norm": digitsOf(80), "of": m.kernel(3, 2, 1, 3, 2, 1, false, nil), "inputs": []any{written(2), written(5), written(4)},
			"bias": m.random(1, 2)}, 3, 3, 4)), []int{3, 3, 4}},
		"exponential": {mapPart(m.read(record{"map": "exponential", "norm": digitsOf(30), "of": m.skew(2, 3), "terms": written(6)}, 2, 4, 4)), []int{2, 4, 4}},
		"scale":       {mapPart(m.read(record{"map": "scale", "norm": digitsOf(9), "factor": m.random(1, 3, 1), "shift": m.random(2, 4)}, 2, 3, 4)), []int{2, 3, 4}},
		"factor":      {mapPart(m.read(record{"map": "scale", "norm": digitsOf(9), "factor": m.random(1, 4), "shift": nil}, 4)), []int{4}},
		"take":        {mapPart(m.read(record{"map": "take", "norm": digitsOf(2), "index": m.tensor(integers([]int64{3, 0, -1, 3, 1, 3, 0}, 7)), "outputs": []any{written(7)}}, 5)), []int{5}},
		"relu":        {activationPart(m.leaky(zero, 9)), []int{9}},
		"absolute":    {activationPart(m.leaky(m.tensor(doubles([]float64{-1, 1, 0, 0.5}, 4)), 4)), []int{4}},
		"leaky":       {activationPart(m.leaky(m.random(2, 3, 1, 1), 3, 2, 2)), []int{3, 2, 2}},
		"sort":        {m.activation(record{"kind": "sort", "size": written(2), "descending": true}, 4, 3), []int{4, 3}},
		"pool":        {m.activation(record{"kind": "max-pool", "size": two(3, 2), "stride": two(1, 1)}, 2, 5, 5), []int{2, 5, 5}},
		"skip":        {skipPart(chained(mapPart(m.dense(5, 5)), activationPart(m.leaky(zero, 5))), chained()), []int{5}},
		"step":        {stepPart(step, m.leaky(zero, 4), 0.125, 20), []int{5}},
		"steep step":  {stepPart(step, m.leaky(m.random(2, 4), 4), 3, 2000), []int{5}},
		"image step":  {stepPart(image, m.leaky(zero, 3, 4, 4), 0.25, 10000), []int{2, 4, 4}},
	}
}

// apart is the distance of two lists.
func apart(a, b []float64) float64 {
	s := 0.0
	for i := range a {
		s += (a[i] - b[i]) * (a[i] - b[i])
	}
	return math.Sqrt(s)
}

func floatOf(a upper) float64 { x, _ := a.f.Float64(); return x }

func TestNoExecutionIsFartherOffThanItsPartsSay(t *testing.T) {
	for _, l := range []*level{single(), mixedUp()} {
		m := newBuilder(l)
		parts := m.parts()
		names := []string{}
		for name := range parts {
			names = append(names, name)
		}
		sort.Strings(names)
		for _, name := range names {
			p := parts[name]
			n := entries(p.shape, "")
			closest := math.Inf(1)
			for k := 0; k < 30; k++ {
				x, radius := singles(normals(n)), math.Ldexp(1, -source.Intn(25))
				start := execution{doubles(x, p.shape...).onGrid(), above(exactly(radius)), l.numbers.lost(n)}
				end := p.checked(l, start)
				moved := normals(n)
				length := apart(moved, make([]float64, n)) * 1.001
				for i := range moved {
					moved[i] = float64(float32(x[i] + moved[i]/length*radius))
				}
				for apart(moved, x) > radius {
					moved = x
				}
				exact := p.computed(exactMachine(), moved)
				if d := apart(exact, p.computed(exactMachine(), x)); d > floatOf(end.moved)+1e-13 {
					t.Fatal(name, "moves by", d)
				}
				if d := apart(floatsOf(end.sample), p.computed(exactMachine(), x)); d > 1e-11 {
					t.Fatal(name, "is another function", d)
				}
				wrong := floatOf(end.wrong)
				for tries := 0; tries < 4; tries++ {
					d := apart(exact, p.computed(newMachine(l), moved))
					if d > wrong+1e-13 {
						t.Fatal(name, l.sums.name, "is off by", d, "of", wrong)
					}
					closest = math.Min(closest, wrong/d)
				}
			}
			t.Log(name, l.sums.name, closest)
		}
	}
}

// Numbers near the least that are not subnormal: every loss is one of t.
func TestFlushedNumbersAreCounted(t *testing.T) {
	l := single()
	m := newBuilder(l)
	for k := 0; k < 300; k++ {
		m.n = 0
		w := m.random(math.Ldexp(1, source.Intn(20)-10), 4, 5)
		d := m.read(record{"map": "dense", "norm": m.norm(w), "weight": w, "bias": nil}, 5)
		p := mapPart(d)
		if k%2 == 0 {
			p = chained(p, activationPart(m.leaky(m.random(1, 4), 4)), mapPart(m.read(record{"map": "scale", "norm": digitsOf(1e3), "factor": m.random(100, 4), "shift": nil}, 4)))
		}
		x := normals(5)
		for i := range x {
			x[i] = float64(float32(math.Ldexp(x[i], -112-source.Intn(16))))
		}
		end := p.checked(l, execution{doubles(x, 5).onGrid(), nothing(), l.numbers.lost(5)})
		exact := p.computed(exactMachine(), x)
		machine := newMachine(l)
		machine.flushes = true
		op := machine.op
		machine.op = func(x float64) float64 { return machine.seen(op(machine.seen(x))) }
		machine.sums = machine.op
		if d, wrong := apart(exact, p.computed(machine, x)), floatOf(end.wrong); !(d <= wrong) {
			t.Fatal("off by", d, "of", wrong)
		}
	}
}

// page is what docs/proof-format.md leaves of a margin of a network of two matrices with a ReLU between them, in float64.
type page struct {
	l            *level
	v, w         [][]float64
	b, c         []float64
	norms        [2]float64
	x            []float64
	hidden, y    []float64
	absolute     [2][]float64
	pairs        bool
	own, outputs int
}

func product2(rows [][]float64, x, bias []float64, sizes bool) []float64 {
	y := make([]float64, len(rows))
	for i, row := range rows {
		y[i] = bias[i]
		if sizes {
			y[i] = math.Abs(bias[i])
		}
		for j, w := range row {
			if sizes {
				y[i] += math.Abs(w * x[j])
			} else {
				y[i] += w * x[j]
			}
		}
	}
	return y
}

func norm2(x []float64) float64 { return apart(x, make([]float64, len(x))) }

func absoluteNorm(rows [][]float64) float64 {
	row, columns := 0.0, make([]float64, len(rows[0]))
	for _, r := range rows {
		s := 0.0
		for j, w := range r {
			s += math.Abs(w)
			columns[j] += math.Abs(w)
		}
		row = math.Max(row, s)
	}
	return math.Sqrt(row * peakOf(columns))
}

func peakOf(x []float64) float64 {
	y := 0.0
	for _, v := range x {
		y = math.Max(y, v)
	}
	return y
}

// summed is R for W x + b with values and sizes at the sample.
func (p *page) summed(rows [][]float64, values, sizes []float64, norm, within float64) float64 {
	u := math.Ldexp(1, -p.l.sums.digits)
	n := float64(len(rows[0])) // and a bias
	g := u / (1 - (n+1)*u)
	s := make([]float64, len(values))
	for i := range s {
		s[i] = sizes[i] + n*(sizes[i]+math.Abs(values[i]))/2
	}
	n1 := absoluteNorm(rows)
	n2 := (n1 + math.Min(n1, norm)) / 2
	r := g*norm2(s) + g*(n1+n*n2)*within
	if p.l.sums != p.l.numbers {
		r += math.Ldexp(1, -p.l.numbers.digits) * (norm2(values) + norm*within + r)
	}
	return r
}

// rest is what is left for the worst other output.
func (p *page) rest(radius float64) (rest, wrong float64) {
	e := p.summed(p.v, product2(p.v, p.x, p.b, false), product2(p.v, p.x, p.b, true), p.norms[0], radius)
	d := p.norms[0] * radius
	sizes := product2(p.w, p.hidden, p.c, true)
	whole := math.Sqrt2 * (p.norms[1]*e + p.summed(p.w, p.y, sizes, p.norms[1], d+e))
	rest = math.Inf(1)
	for j := range p.w {
		if j == p.own {
			continue
		}
		difference := make([]float64, len(p.hidden))
		for k := range difference {
			difference[k] = p.w[p.own][k] - p.w[j][k]
		}
		constant := math.Sqrt2 * p.norms[0] * p.norms[1]
		if p.pairs {
			constant = p.norms[0] * norm2(difference)
		}
		rows := norm2(difference) * e
		for _, i := range []int{p.own, j} {
			one := p.w[i : i+1]
			u := math.Ldexp(1, -p.l.sums.digits)
			n := float64(len(p.hidden))
			g := u / (1 - (n+1)*u)
			own := g * (sizes[i] + n*(sizes[i]+math.Abs(p.y[i]))/2 + (1+n)*norm2(one[0])*(d+e))
			if p.l.sums != p.l.numbers {
				own += math.Ldexp(1, -p.l.numbers.digits) * (math.Abs(p.y[i]) + norm2(one[0])*(d+e) + own)
			}
			rows += own
		}
		if r := p.y[p.own] - p.y[j] - radius*constant - math.Min(whole, rows); r < rest {
			rest, wrong = r, math.Min(whole, rows)
		}
	}
	return rest, wrong
}

func TestRadiiAreShownUpToThePage(t *testing.T) {
	for k := 0; k < 24; k++ {
		l := single()
		if k%2 == 1 {
			l = mixedUp()
		}
		sizes := [3]int{1 + source.Intn(40), 1 + source.Intn(30), 2 + source.Intn(4)}
		m := newBuilder(l)
		b := m.b
		b.input = []int{sizes[0]}
		p := &page{l: l, pairs: k%4 < 2}
		read := func(rows, cols int) (record, [][]float64, []float64, float64) {
			w, bias := singles(normals(rows*cols)), singles(normals(rows))
			norm := longest(w, rows, cols) * (1 + 1e-9)
			return record{"map": "dense", "norm": digitsOf(norm), "weight": m.tensor(doubles(w, rows, cols)), "bias": m.tensor(doubles(bias, rows))}, rowsOf(w, rows, cols, false), bias, norm
		}
		var first, last record
		first, p.v, p.b, p.norms[0] = read(sizes[1], sizes[0])
		last, p.w, p.c, p.norms[1] = read(sizes[2], sizes[1])
		zero := m.tensor(doubles([]float64{0}, 1))
		b.readNetwork(record{"blocks": []any{record{"inner": []any{first}, "activation": record{"kind": "leaky-relu", "slopes": zero}, "outer": []any{}, "skip": nil, "bound": digitsOf(p.norms[0])}},
			"last": []any{last}, "method": nil})
		p.x = singles(normals(sizes[0]))
		p.hidden = product2(p.v, p.x, p.b, false)
		for i := range p.hidden {
			p.hidden[i] = math.Max(p.hidden[i], 0)
		}
		p.y = product2(p.w, p.hidden, p.c, false)
		for j := range p.y {
			if p.y[j] > p.y[p.own] {
				p.own = j
			}
		}
		name := "network"
		if p.pairs {
			name = "pairs"
		}
		shows := b.readHead(name, sizes[2], nil, nil)
		low, high := 0.0, 100.0
		for n := 0; n < 100; n++ {
			if rest, _ := p.rest((low + high) / 2); rest > 0 {
				low = (low + high) / 2
			} else {
				high = (low + high) / 2
			}
		}
		if low == 0 {
			continue
		}
		_, wrong := p.rest(low)
		if wrong < 1e-9 {
			t.Fatal("no errors", wrong)
		}
		most := p.norms[0] * p.norms[1]
		room := (wrong*0x1p-10 + 1e-13*most) / most // of a radius whose constant is at most about that
		x := doubles(p.x, sizes[0]).onGrid()
		if !shows(x, p.own, exactly(low-4*room)) {
			t.Error(k, "less than the page shows", low, wrong)
		}
		if shows(x, p.own, exactly(low+1e-12*low)) {
			t.Error(k, "more than the page shows", low, wrong)
		}
	}
}
