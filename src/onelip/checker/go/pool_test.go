package main

import (
	"fmt"
	"math"
	"math/big"
	"testing"
)

func readsGroups(of string, index *tensor, input []int, outputs ...int) (a *activation, ok bool) {
	b := &bundle{tensors: map[string]*tensor{"i": index}}
	shape := []any{}
	for _, n := range outputs {
		shape = append(shape, digits(fmt.Sprint(n)))
	}
	ok = !refused(func() {
		a = b.readActivation(record{"kind": "pool", "of": of, "index": "i", "outputs": shape}, input, "it")
	})
	return a, ok
}

// rootAt is the root of a fraction, off by less than 2^-200 of it.
func rootAt(x *big.Rat) *big.Rat {
	r, _ := new(big.Float).SetPrec(220).Sqrt(new(big.Float).SetPrec(300).SetRat(x)).Rat(nil)
	return r
}

func TestPoolsAreMaximaAndLengthsOfGroups(t *testing.T) {
	for n := 0; n < 300; n++ {
		rows, cols, inputs := 1+source.Intn(5), 1+source.Intn(6), 1+source.Intn(9)
		index, counts := make([]int64, rows*cols), make([]int64, inputs)
		for i := range index {
			index[i] = int64(source.Intn(inputs+1)) - 1
			if i%cols == 0 && index[i] < 0 {
				index[i] = 0
			}
			if index[i] >= 0 {
				counts[index[i]]++
			}
		}
		x := make([]float64, inputs)
		for i := range x {
			switch n % 3 {
			case 0:
				x[i] = wild()
			case 1:
				x[i] = float64(source.Intn(7) - 3)
			case 2:
				x[i] = source.NormFloat64()
			}
		}
		input := doubles(x, inputs)
		g := input.onGrid()
		for _, of := range []string{"maximum", "length"} {
			a, ok := readsGroups(of, integers(index, rows, cols), []int{inputs}, rows, 1)
			if !ok || tuple(a.outputs) != tuple([]int{rows, 1}) {
				t.Fatal("refused")
			}
			most := int64(0)
			for _, c := range counts {
				if c > most {
					most = c
				}
			}
			if a.square.Cmp(whole(most)) != 0 || a.constant.f.Cmp(rootOfWhole(int(most)).f) != 0 {
				t.Error("the constant", a.square, most)
			}
			exact := make([]*big.Rat, rows)
			for r := range exact {
				for _, k := range index[r*cols : (r+1)*cols] {
					if k < 0 {
						continue
					}
					v := input.fraction(int(k))
					if exact[r] == nil {
						exact[r] = v
						if of == "length" {
							exact[r] = multiply(v, v)
						}
					} else if of == "length" {
						exact[r].Add(exact[r], multiply(v, v))
					} else {
						exact[r] = larger(exact[r], v)
					}
				}
				if of == "length" {
					exact[r] = rootAt(exact[r])
				}
			}
			y := a.apply(g)
			y.off = y.off.plus(above(power(-150)))
			covers(t, y, exact, of)
			if far := y.off.fraction(); far.Cmp(above(power(-46)).times(lengthOf(g.m, g.e)).plus(above(power(-149))).fraction()) > 0 && n%3 > 0 {
				t.Error(of, "too rough")
			}
			if a.apply(grid{g.m, g.e, number(1)}).off.f.Cmp(a.constant.f) < 0 {
				t.Error("an error of the input")
			}
		}
	}
}

func TestLengthsOfTheLargestGrids(t *testing.T) {
	for _, count := range []int{1, 2, 3, 1 << 10} {
		for _, m := range []int64{1, 3, lift - 1, lift} {
			x, exact := make([]int64, count), times2(whole(m), 5)
			members := make([]int32, count)
			for i := range x {
				x[i], members[i] = m, int32(i)
			}
			exact = rootAt(multiply(whole(int64(count)), multiply(exact, exact)))
			y := groups{members, []int32{0, int32(count)}}.lengths(grid{x, 5, nothing()})
			covers(t, grid{y.m, y.e, y.off.plus(above(power(-100)))}, []*big.Rat{exact}, "a length")
			if s := math.Sqrt(float64(count)); s == math.Trunc(s) && (y.off.f.Sign() != 0 || distance2(y, []*big.Rat{exact}).Sign() != 0) {
				t.Error(count, m, "a root that is exact")
			}
		}
	}
	if y := rootsOf([]wide{{}, {}}, 3); y.m[0] != 0 || y.off.f.Sign() != 0 {
		t.Error("roots of 0")
	}
	if y := rootsOf([]wide{widen(1).up(120).plus(widen(1))}, 0); y.off.f.Sign() == 0 {
		t.Error("a root of a number that was cut")
	}
}

func TestRootsAreRoundedDown(t *testing.T) {
	for n := 0; n < 20000; n++ {
		r := magnitude(integral(precise))
		for _, s := range []wide{times(r, r), times(r, r).plus(times(r, 2)), times(r, r).plus(widen(source.Int63n(2*r + 1)))} {
			if wholeRoot(s) != r {
				t.Fatal(r, s, wholeRoot(s))
			}
		}
	}
}

// A claim of the root is right, one below it is not; entries that a row names twice count twice.
func TestConstantsOfPools(t *testing.T) {
	bound := func(of string, index []int64, cols int, claimed float64) bool {
		b := &bundle{tensors: map[string]*tensor{"i": integers(index, len(index)/cols, cols)}}
		return !refused(func() {
			b.readBlock(record{"inner": []any{}, "activation": record{"kind": "pool", "of": of, "index": "i", "outputs": []any{digits(fmt.Sprint(len(index) / cols))}},
				"outer": []any{}, "skip": nil, "bound": fmt.Sprintf("%x", claimed)}, []int{4}, "it")
		})
	}
	for _, of := range []string{"maximum", "length"} {
		for _, c := range []struct {
			index []int64
			cols  int
			times float64
		}{{[]int64{0, 1, 2, 3}, 1, 1}, {[]int64{0, 1, 1, 2}, 2, 2}, {[]int64{1, 1, 2, 3}, 2, 2}, {[]int64{3, 3, 3, -1, 3, 0}, 3, 4}} {
			root := math.Sqrt(c.times)
			for exactly(root).Cmp(new(big.Rat).Quo(whole(int64(c.times)), exactly(root))) < 0 {
				root = math.Nextafter(root, 9)
			}
			if !bound(of, c.index, c.cols, root) || bound(of, c.index, c.cols, math.Nextafter(root, 0)) {
				t.Error(of, c.index, root)
			}
		}
	}
}

func TestWhatNoPoolIs(t *testing.T) {
	index := integers([]int64{0, 1, 2, -1, 3, 3}, 3, 2)
	if _, ok := readsGroups("length", index, []int{2, 2}, 3); !ok {
		t.Error("refused")
	}
	for _, of := range []string{"sum", "Maximum", ""} {
		if _, ok := readsGroups(of, index, []int{4}, 3); ok {
			t.Error(of)
		}
	}
	for _, c := range []struct {
		index  *tensor
		inputs int
	}{
		{index, 3},
		{integers([]int64{0, 1, 2, -2, 3, 3}, 3, 2), 4},
		{integers([]int64{0, 1, -1, -1, 3, 3}, 3, 2), 4},
		{integers([]int64{0, 1, 2}, 3), 4},
		{integers([]int64{0, 1, 2}, 3, 1, 1), 4},
		{integers([]int64{0, 1}, 2, 1), 4},
		{integers([]int64{0, 1, 2, 3}, 4, 1), 4},
		{integers(nil, 3, 0), 4},
		{doubles([]float64{0, 0, 0}, 3, 1), 4},
		{integers(make([]int64, 3*(widestGroup+1)), 3, widestGroup+1), 4},
	} {
		if _, ok := readsGroups("maximum", c.index, []int{c.inputs}, 3); ok {
			t.Error(c.index.shape, c.inputs)
		}
	}
	b := newBuilder(single())
	name := b.tensor(integers([]int64{0}, 1, 1))
	if !refused(func() {
		b.b.readActivation(record{"kind": "pool", "of": "length", "index": name, "outputs": []any{digits("1")}}, []int{1}, "it")
	}) {
		t.Error("level float knows it")
	}
}

// Where the table has only a constant, slopes are between it and its negative.
func TestStepsOfPools(t *testing.T) {
	w := make([]float64, 16)
	for i := 0; i < 4; i++ {
		w[5*i] = 1
	}
	b := &bundle{tensors: map[string]*tensor{"w": doubles(w, 4, 4), "i": integers([]int64{0, 1, 1, 2, 3, -1, 3, -1}, 4, 2), "k": doubles([]float64{1}, 1, 1, 1, 1)}, to: newBuilder(nil).b.to}
	dense := record{"map": "dense", "norm": "0x1.00000001p+0", "weight": "w", "bias": nil}
	one, none := []any{digits("1"), digits("1")}, []any{digits("0"), digits("0")}
	image := record{"map": "convolution", "norm": "0x1.00000001p+0", "weight": "k", "bias": nil, "stride": one, "padding": none, "dilation": one,
		"groups": digits("1"), "circular": false, "witness": "matrix"}
	pool := func(of string, outputs ...any) record {
		return record{"kind": "pool", "of": of, "index": "i", "outputs": outputs}
	}
	shown := func(m, activation record, bound float64, input ...int) bool {
		return !refused(func() {
			b.readBlock(record{"inner": []any{m}, "activation": activation, "step": "0x1p-1", "bound": fmt.Sprintf("%x", bound)}, input, "it")
		})
	}
	for _, of := range []string{"maximum", "length"} {
		if a := pool(of, digits("4")); !shown(dense, a, 1+math.Sqrt2/2+1e-8, 4) || shown(dense, a, 1+math.Sqrt2/2-1e-8, 4) {
			t.Error(of)
		}
		if shown(dense, pool(of, digits("2"), digits("2")), 9, 4) {
			t.Error(of, "of another shape")
		}
	}
	most := record{"kind": "max-pool", "size": one, "stride": one}
	if !shown(image, most, 1.5+1e-8, 1, 2, 2) || shown(image, most, 1.5-1e-8, 1, 2, 2) {
		t.Error("max-pool")
	}
}
