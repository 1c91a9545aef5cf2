package main

import (
	"math"
	"math/big"
	"sort"
)

// activation is a map that is not linear.
type activation struct {
	outputs   []int
	square    *big.Rat           // the square of its Lipschitz constant
	constant  upper              // the constant, rounded upwards
	low, high *big.Rat           // slopes, or nil
	slope     func(int) *big.Rat // of entry i of a leaky-relu below 0, or nil
	apply     func(grid) grid
	rounded   func(grid) grid // the products of negative numbers with slopes, but for those that are exact
	steepest  upper           // the largest of those slopes, or nothing
	curve     *curve          // of a smooth one, or nil
}

// slopes are those of the activation, or the constant and its negative where it has none.
func (a *activation) slopes() (low, high *big.Rat) {
	if a.low != nil {
		return a.low, a.high
	}
	high = a.constant.fraction()
	return new(big.Rat).Neg(high), high
}

// further are activations that level float does not know.
var further = map[string]func(b *bundle, v any, input []int, what string) *activation{
	"scaled":    (*bundle).readScaled,
	"piecewise": (*bundle).readPiecewise,
	"fold":      (*bundle).readFold,
	"rays":      (*bundle).readRays,
	"polygon":   (*bundle).readPolygon,
}

func (b *bundle) readActivation(v any, input []int, what string) *activation {
	r, ok := v.(record)
	demand(ok, "%s: the activation is not an object", what)
	kind, _ := r["kind"].(string)
	if c := curves[kind]; c != nil {
		demand(b.level == nil, "%s: an activation that level float does not know", what)
		return readSmooth(v, c, input, what)
	}
	if read := further[kind]; read != nil {
		demand(b.level == nil, "%s: an activation that level float does not know", what)
		return read(b, v, input, what)
	}
	switch kind {
	case "leaky-relu":
		return b.readLeaky(v, input, what)
	case "sort":
		return readSort(v, input, what)
	case "max-pool":
		return readPool(v, input, what)
	case "pool":
		return b.readGroups(v, input, what)
	}
	refuse("%s: an unknown activation", what)
	return nil
}

func (b *bundle) readLeaky(v any, input []int, what string) *activation {
	f := fields(v, what, "kind", "slopes")
	t := b.floats(f["slopes"], what)
	at := onto(t, input, what)
	low, high := t.extremes()
	low, high = smaller(low, whole(1)), larger(high, whole(1))
	most := larger(high, new(big.Rat).Neg(low))
	slopes := t.onGrid()
	a := &activation{outputs: input, square: multiply(most, most), low: low, high: high, constant: above(most)}
	a.slope = func(i int) *big.Rat { return t.fraction(int(at.places()[i])) }
	below := func(x, slopes grid) grid {
		rest := grid{make([]int64, len(x.m)), x.e, nothing()}
		for i, m := range x.m {
			if m < 0 {
				rest.m[i] = m
			}
		}
		return scaledBy(rest, slopes, at.places())
	}
	a.steepest = nothing()
	inexact := t.onGridWhere(func(i int) bool {
		size := math.Abs(t.double(i))
		if size != 1 && a.steepest.f.Cmp(big.NewFloat(size)) < 0 {
			a.steepest = above(new(big.Rat).SetFloat64(size))
		}
		return size != 1
	})
	a.rounded = func(x grid) grid { return below(x, inexact) }
	a.apply = func(x grid) grid {
		kept := grid{make([]int64, len(x.m)), x.e, nothing()}
		for i, m := range x.m {
			if m > 0 {
				kept.m[i] = m
			}
		}
		y := together(kept, below(x, slopes))
		y.off = y.off.plus(a.constant.times(x.off))
		return y
	}
	return a
}

func readSort(v any, input []int, what string) *activation {
	f := fields(v, what, "kind", "size", "descending")
	size, descending := integer(f["size"], what, 1, largest), truth(f["descending"], what)
	demand(input[0]%size == 0, "%s: channels that are not groups of %d", what, size)
	area := entries(input, what) / input[0]
	a := &activation{outputs: input, square: whole(1), low: whole(-1), high: whole(1), constant: above(whole(1))}
	a.apply = func(x grid) grid {
		spend(64, len(x.m))
		y := grid{make([]int64, len(x.m)), x.e, x.off}
		group := make([]int64, size)
		for first := 0; first < input[0]; first += size {
			for p := 0; p < area; p++ {
				for c := range group {
					group[c] = x.m[(first+c)*area+p]
				}
				sort.Slice(group, func(i, j int) bool { return group[i] != group[j] && group[i] > group[j] == descending })
				for c := range group {
					y.m[(first+c)*area+p] = group[c]
				}
			}
		}
		return y
	}
	return a
}

func readPool(v any, input []int, what string) *activation {
	f := fields(v, what, "kind", "size", "stride")
	size, stride := pair(f["size"], what, 1), pair(f["stride"], what, 1)
	from := image(input, what)
	to := from
	count := int64(1)
	for a := range size {
		demand(from[a+1] >= size[a], "%s: a window larger than the image", what)
		to[a+1] = (from[a+1]-size[a])/stride[a] + 1
		count *= int64((size[a] + stride[a] - 1) / stride[a])
	}
	a := &activation{outputs: to[:], square: whole(count), constant: rootOf(big.NewInt(count))}
	a.apply = func(x grid) grid {
		spend(to[0]*to[1]*to[2], size[0], size[1])
		y := grid{make([]int64, 0, to[0]*to[1]*to[2]), x.e, x.off.times(a.constant)}
		for c := 0; c < to[0]; c++ {
			for i := 0; i < to[1]; i++ {
				for j := 0; j < to[2]; j++ {
					most := int64(-1 << 62)
					for k := 0; k < size[0]; k++ {
						row := (c*from[1] + i*stride[0] + k) * from[2]
						for l := 0; l < size[1]; l++ {
							if m := x.m[row+j*stride[1]+l]; m > most {
								most = m
							}
						}
					}
					y.m = append(y.m, most)
				}
			}
		}
		return y
	}
	return a
}
