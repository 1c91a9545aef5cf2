package main

import (
	"math"
	"sort"
)

// sums is a map each of whose entries is a sum of products and of a bias, as its rounding has to know it.
type sums struct {
	apply    func(grid) grid // W x + b
	absolute func(grid) grid // |W| x + |b|, for entries >= 0
	norm     upper           // of W
	total    upper           // of |W|
	terms    int             // of an entry, at most; zeros do not count
}

func (s *sums) additions() int { return most(s.terms, 1) - 1 }

// biased is the same sums with one more term.
func (s *sums) biased(bias *tensor) *sums {
	if bias == nil {
		return s
	}
	more := *s
	sizes := bias.absolute()
	more.apply = func(x grid) grid { return biased(s.apply(x), bias) }
	more.absolute = func(x grid) grid { return biased(s.absolute(x), sizes) }
	for i := 0; i < bias.length(); i++ {
		if bias.double(i) != 0 {
			more.terms = s.terms + 1
		}
	}
	return &more
}

// heaviness is the largest number of terms and the largest sum of absolute weights of rows and of columns.
type heaviness struct {
	terms   [2]int
	weights [2]float64
}

func (h *heaviness) count(side, terms int, weights float64) {
	h.terms[side] = most(h.terms[side], terms)
	h.weights[side] = math.Max(h.weights[side], weights)
}

// total is at least the norm of the absolute weights in units of 2^e: the root of the largest row times the largest
// column. Sums of at most 2^26 numbers >= 0 are off by a factor of less than 1 + 2^-25.
func (h *heaviness) total(e int) upper {
	root := math.Sqrt(h.weights[0]) * math.Sqrt(h.weights[1])
	return upper{upwards().SetFloat64(root * (1 + 0x1p-20))}.scaled(e)
}

// absolute is the absolute values of whole numbers.
func absolute(m []int64) []int64 {
	a := make([]int64, len(m))
	for i, x := range m {
		a[i] = magnitude(x)
	}
	return a
}

// absolute is the absolute values of floating-point numbers.
func (t *tensor) absolute() *tensor {
	a := &tensor{t.kind, t.shape, append([]byte{}, t.raw...)}
	for i := widths[t.kind] - 1; i < len(a.raw); i += widths[t.kind] {
		a.raw[i] &= 127
	}
	return a
}

// rounded is a map with its bias, and its adjoint, as sums; it is empty at level real.
type rounded struct{ forward, back *sums }

func (r rounded) ways() (forward, back *sums) { return r.forward, r.back }

// counted is a matrix and its transpose.
func (d *dense) counted() rounded {
	spend(8, len(d.a.m))
	keep(len(d.a.m), 16)
	var h heaviness
	terms, weights := make([]int, d.a.cols), make([]float64, d.a.cols)
	for i := 0; i < d.a.rows; i++ {
		n, sum := 0, 0.0
		for j := range terms {
			x := float64(magnitude(d.a.m[i*d.a.cols+j]))
			sum, weights[j] = sum+x, weights[j]+x
			if d.weight.double(i*d.a.cols+j) != 0 {
				n, terms[j] = n+1, terms[j]+1
			}
		}
		h.count(0, n, sum)
	}
	for j := range terms {
		h.count(1, terms[j], weights[j])
	}
	of := &dense{proved: d.proved, a: d.a, off: d.off}
	sizes := &dense{proved: d.proved, a: matrix{d.a.rows, d.a.cols, absolute(d.a.m), d.a.e}, off: d.off}
	norm, total := above(d.norm), h.total(d.a.e).plus(d.off)
	forward := &sums{of.apply, sizes.apply, norm, total, h.terms[0]}
	return rounded{forward.biased(d.bias), &sums{of.transposed, sizes.transposed, norm, total, h.terms[1]}}
}

// counted is a convolution and its adjoint.
func (v *convolved) counted() rounded {
	keep(len(v.c.weight.m), 24)
	h := v.c.heaviest()
	kernel := *v.c
	kernel.weight.m = absolute(v.c.weight.m)
	sizes := &convolved{proved: v.proved, c: &kernel}
	norm, total := above(v.norm), h.total(kernel.weight.e).plus(v.c.off())
	forward := &sums{v.linear, sizes.linear, norm, total, h.terms[0]}
	return rounded{forward.biased(v.bias), &sums{v.transposed, sizes.transposed, norm, total, h.terms[1]}}
}

// heaviest looks at all places of the result, and at all pixels: those where the same taps meet are alike.
func (c *convolution) heaviest() heaviness {
	var h heaviness
	outs, ins, k, m := c.wide[0]/c.groups, c.wide[1], c.wide[2], c.wide[3]
	placesY, pixelsY := c.meetings(0)
	placesX, pixelsX := c.meetings(1)
	kernel := func(o, i int, y, x []int32) (terms int, weights float64) {
		for _, s := range y {
			for _, t := range x {
				n := ((o*ins+i)*k+int(s))*m + int(t)
				weights += float64(magnitude(c.weight.m[n]))
				if c.given.double(n) != 0 {
					terms++
				}
			}
		}
		return terms, weights
	}
	// all takes the sums over inner of each outer, for every way in which taps meet.
	all := func(side, outer, inner int, ys, xs [][]int32, at func(a, b int) (o, i int)) {
		for _, y := range ys {
			for _, x := range xs {
				spend(len(y), len(x), outer*inner)
				demand(len(y)*len(x)*inner <= largest, "a kernel with too many taps")
				for a := 0; a < outer; a++ {
					terms, weights := 0, 0.0
					for b := 0; b < inner; b++ {
						o, i := at(a, b)
						n, w := kernel(o, i, y, x)
						terms, weights = terms+n, weights+w
					}
					h.count(side, terms, weights)
				}
			}
		}
	}
	all(0, c.wide[0], ins, placesY, placesX, func(o, i int) (int, int) { return o, i })
	all(1, c.from[0], outs, pixelsY, pixelsX, func(i, o int) (int, int) { return i/ins*outs + o, i % ins })
	return h
}

// meetings are the taps of an axis that meet a pixel at one place, and those that read one pixel, each as often as it does:
// all of them, but for those with no more than others.
func (c *convolution) meetings(axis int) (places, pixels [][]int32) {
	taps := c.wide[axis+2]
	type reading struct{ pixel, tap int32 }
	all := []reading{}
	for first := 0; first < len(c.reads[axis]); first += taps {
		place := []int32{}
		for k, p := range c.reads[axis][first : first+taps] {
			if p >= 0 {
				place = append(place, int32(k))
				all = append(all, reading{p, int32(k)})
			}
		}
		places = append(places, place)
	}
	sort.Slice(all, func(i, j int) bool {
		return all[i].pixel < all[j].pixel || all[i].pixel == all[j].pixel && all[i].tap < all[j].tap
	})
	for n, r := range all {
		if n == 0 || r.pixel != all[n-1].pixel {
			pixels = append(pixels, nil)
		}
		last := len(pixels) - 1
		pixels[last] = append(pixels[last], r.tap)
	}
	return longestOf(places), longestOf(pixels)
}

// longestOf is the ascending lists that are not in others.
func longestOf(lists [][]int32) [][]int32 {
	sort.Slice(lists, func(i, j int) bool { return len(lists[i]) > len(lists[j]) })
	kept := [][]int32{}
	for _, l := range lists {
		spend(len(kept)+1, len(l)+1)
		if !among(l, kept) {
			kept = append(kept, l)
		}
	}
	return kept
}

func among(l []int32, others [][]int32) bool {
	for _, other := range others {
		n := 0
		for _, k := range other {
			if n < len(l) && l[n] == k {
				n++
			}
		}
		if n == len(l) {
			return true
		}
	}
	return false
}
