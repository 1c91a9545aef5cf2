package main

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/big"
	"math/bits"
	"sort"
)

// tensor is numbers of a file as they stand in it.
type tensor struct {
	kind  string
	shape []int
	raw   []byte
}

var widths = map[string]int{"F64": 8, "F32": 4, "I64": 8, "U8": 1}

// readTensors gives the tensors of a safetensors file by name; every byte belongs to exactly one.
func readTensors(file []byte) map[string]*tensor {
	demand(len(file) >= 8, "the tensors' file is too short")
	size := binary.LittleEndian.Uint64(file)
	demand(size <= uint64(len(file)-8), "the tensors' header is longer than their file")
	header, ok := parseJSON(file[8:8+size], "the tensors' header").(record)
	demand(ok, "the tensors' header is not an object")
	data := file[8+size:]
	delete(header, "__metadata__")
	type place struct{ from, to int }
	known, places := map[string]*tensor{}, []place{}
	for name, v := range header {
		what := fmt.Sprintf("tensor %q", short(name))
		f := fields(v, what, "dtype", "shape", "data_offsets")
		t := &tensor{kind: text(f["dtype"], what)}
		demand(widths[t.kind] > 0, "%s has an unknown type", what)
		sides := list(f["shape"], what)
		demand(len(sides) <= 8, "%s has too many axes", what)
		for _, side := range sides {
			t.shape = append(t.shape, integer(side, what, 0, largest))
		}
		offsets := list(f["data_offsets"], what)
		demand(len(offsets) == 2, "%s has no place", what)
		from := integer(offsets[0], what, 0, len(data))
		to := integer(offsets[1], what, from, len(data))
		demand(to-from == entries(t.shape, what)*widths[t.kind], "%s has another size than its shape", what)
		t.raw = data[from:to]
		known[name] = t
		places = append(places, place{from, to})
		t.finite(what)
	}
	sort.Slice(places, func(i, j int) bool {
		return places[i].from < places[j].from || places[i].from == places[j].from && places[i].to < places[j].to
	})
	end := 0
	for _, p := range places {
		demand(p.from == end, "the tensors leave a gap or overlap")
		end = p.to
	}
	demand(end == len(data), "there are bytes after the tensors")
	return known
}

func (t *tensor) length() int { return len(t.raw) / widths[t.kind] }

func (t *tensor) double(i int) float64 {
	if t.kind == "F64" {
		return math.Float64frombits(binary.LittleEndian.Uint64(t.raw[8*i:]))
	}
	return float64(math.Float32frombits(binary.LittleEndian.Uint32(t.raw[4*i:])))
}

func (t *tensor) floating() bool { return t.kind == "F64" || t.kind == "F32" }

func (t *tensor) finite(what string) {
	if !t.floating() {
		return
	}
	for i := 0; i < t.length(); i++ {
		x := t.double(i)
		demand(!math.IsInf(x, 0) && !math.IsNaN(x), "%s has a number that is not finite", what)
	}
}

// at is entry i as m 2^e, exact.
func (t *tensor) at(i int) (m int64, e int) {
	switch t.kind {
	case "I64":
		return int64(binary.LittleEndian.Uint64(t.raw[8*i:])), 0
	case "U8":
		return int64(t.raw[i]), 0
	}
	b := math.Float64bits(t.double(i))
	m, e = int64(b&(1<<52-1)), int(b>>52&2047)
	if e > 0 {
		m |= 1 << 52
	} else {
		e = 1
	}
	if b>>63 == 1 {
		m = -m
	}
	return m, e - 1075
}

// fraction is entry i, exact.
func (t *tensor) fraction(i int) *big.Rat {
	m, e := t.at(i)
	return times2(whole(m), e)
}

// extremes are the smallest and the largest entry, exact; there is at least one.
func (t *tensor) extremes() (low, high *big.Rat) {
	demand(t.length() > 0, "an empty tensor")
	less := func(i, j int) bool { a, _ := t.at(i); b, _ := t.at(j); return a < b }
	if t.floating() {
		less = func(i, j int) bool { return t.double(i) < t.double(j) }
	}
	least, most := 0, 0
	for i := 1; i < t.length(); i++ {
		if less(i, least) {
			least = i
		}
		if less(most, i) {
			most = i
		}
	}
	return t.fraction(least), t.fraction(most)
}

// lowest is what reach says of 0.
const lowest = -1 << 40

// reach is the least n with |m 2^e| < 2^n; for 0 it is very small.
func reach(m int64, e int) int {
	if m == 0 {
		return lowest
	}
	if m < 0 {
		m = -m // -2^63 stays what it is, and is right as an unsigned number
	}
	return bits.Len64(uint64(m)) + e
}

// grid is whole numbers of at most 2^50 in absolute value, times 2^e, and what they are off by, all together.
type grid struct {
	m   []int64
	e   int
	off upper
}

// onGrid is the tensor on a grid, exact where its numbers allow.
func (t *tensor) onGrid() grid { return t.onGridWhere(func(int) bool { return true }) }

// onGridWhere has zeros for what is not used.
func (t *tensor) onGridWhere(used func(int) bool) grid {
	n := t.length()
	spend(8, n)
	top := lowest
	for i := 0; i < n; i++ {
		if r := reach(t.at(i)); r > top && used(i) {
			top = r
		}
	}
	g := grid{m: make([]int64, n), off: nothing()}
	if top == lowest {
		return g
	}
	g.e = top - precise
	inexact := 0
	for i := range g.m {
		if !used(i) {
			continue
		}
		m, e := t.at(i)
		v, exact := moved(m, e, g.e)
		g.m[i] = v
		if !exact {
			inexact++
		}
	}
	g.off = rounding(inexact, g.e)
	return g
}

// settled is sums times 2^e on a grid that fits, with what rounding them adds.
func settled(sums []wide, e int) grid {
	most := 0
	for _, s := range sums {
		if n := s.length(); n > most {
			most = n
		}
	}
	shift := most - precise
	if shift < 0 {
		shift = 0
	}
	g := grid{m: make([]int64, len(sums)), e: e + shift}
	inexact := 0
	for i, s := range sums {
		v, exact := s.nearest(shift)
		g.m[i] = v
		if !exact {
			inexact++
		}
	}
	g.off = rounding(inexact, g.e)
	return g
}

// together is a + b, number by number, on a grid that fits both.
func together(a, b grid) grid {
	top := lowest
	for i := range a.m {
		for _, r := range [2]int{reach(a.m[i], a.e), reach(b.m[i], b.e)} {
			if r > top {
				top = r
			}
		}
	}
	spend(8, len(a.m))
	s := grid{m: make([]int64, len(a.m)), off: a.off.plus(b.off)}
	if top == lowest {
		return s
	}
	s.e = top + 1 - precise
	inexact := 0
	for i := range s.m {
		x, exactX := moved(a.m[i], a.e, s.e)
		y, exactY := moved(b.m[i], b.e, s.e)
		s.m[i] = x + y
		if !exactX || !exactY {
			inexact++
		}
	}
	s.off = s.off.plus(rounding(inexact, s.e+1))
	return s
}

// moved is m 2^e in units of 2^to, to the nearest; the caller knows that it fits.
func moved(m int64, e, to int) (int64, bool) {
	if m == 0 {
		return 0, true
	}
	return widen(m).nearest(to - e)
}
