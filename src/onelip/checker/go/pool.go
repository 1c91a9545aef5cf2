package main

import "math"

const widestGroup = 1 << 19

// readGroups reads maxima or lengths of groups of entries that an index names, row by row.
func (b *bundle) readGroups(v any, input []int, what string) *activation {
	f := fields(v, what, "kind", "of", "index", "outputs")
	demand(b.level == nil, "%s: an activation that level float does not know", what)
	of, list := text(f["of"], what), b.tensor(f["index"], what)
	demand(of == "maximum" || of == "length", "%s: a pool of an unknown kind", what)
	demand(!list.floating(), "%s: an index of floating-point numbers", what)
	outputs := sizes(f["outputs"], what)
	rows, inputs := entries(outputs, what), entries(input, what)
	demand(len(list.shape) == 2 && list.shape[0] == rows, "%s: the index has another number of rows than the result", what)
	demand(list.shape[1] <= widestGroup, "%s: the index has too many columns", what)
	spend(64, list.length()+rows+inputs)
	keep(list.length()+rows, 4)
	g := groups{make([]int32, 0, list.length()), make([]int32, 1, rows+1)}
	counts, most := make([]int, inputs), 0
	for r := 0; r < rows; r++ {
		for c := 0; c < list.shape[1]; c++ {
			k, _ := list.at(r*list.shape[1] + c)
			if k < -1 || k >= int64(inputs) {
				refuse("%s: an index is out of range", what)
			}
			if k < 0 {
				continue
			}
			g.members = append(g.members, int32(k))
			counts[k]++
			if counts[k] > most {
				most = counts[k]
			}
		}
		if len(g.members) == int(g.ends[r]) {
			refuse("%s: an index with a row that names no entry", what)
		}
		g.ends = append(g.ends, int32(len(g.members)))
	}
	// Each row changes by at most the length of what its entries change by.
	a := &activation{outputs: outputs, square: whole(int64(most)), constant: rootOfWhole(most)}
	pooled := g.lengths
	if of == "maximum" {
		pooled = g.maxima
	}
	a.apply = func(x grid) grid {
		spend(8, len(g.members)+8*rows)
		y := pooled(grid{x.m, x.e, nothing()})
		y.off = y.off.plus(a.constant.times(x.off))
		return y
	}
	return a
}

// groups has the members of group r between ends r and r + 1.
type groups struct{ members, ends []int32 }

func (g groups) maxima(x grid) grid {
	y := grid{make([]int64, len(g.ends)-1), x.e, nothing()}
	for r := range y.m {
		y.m[r] = x.m[g.members[g.ends[r]]]
		for _, k := range g.members[g.ends[r]:g.ends[r+1]] {
			if x.m[k] > y.m[r] {
				y.m[r] = x.m[k]
			}
		}
	}
	return y
}

func (g groups) lengths(x grid) grid {
	squares := make([]wide, len(g.ends)-1) // sums of at most 2^19
	for r := range squares {
		for _, k := range g.members[g.ends[r]:g.ends[r+1]] {
			squares[r] = squares[r].plus(times(x.m[k], x.m[k]))
		}
	}
	return rootsOf(squares, x.e)
}

// rootsOf is the roots of numbers >= 0 in units of 4^e, on a grid that fits.
func rootsOf(squares []wide, e int) grid {
	longest := 0
	for _, s := range squares {
		longest = most(longest, s.length())
	}
	shift := (2*precise - longest) >> 1 // then roots are below 2^50
	y := grid{m: make([]int64, len(squares)), e: e - shift}
	inexact := 0
	for i, s := range squares {
		exact := true
		if shift >= 0 {
			s = s.up(2 * shift)
		} else {
			s, exact = s.down(-2 * shift)
		}
		y.m[i] = wholeRoot(s)
		if !exact || times(y.m[i], y.m[i]) != s {
			inexact++
		}
	}
	y.off = rounding(inexact, y.e+1)
	return y
}

// wholeRoot is the root of a number from 0 to 2^100, rounded down.
func wholeRoot(s wide) int64 {
	r := int64(math.Sqrt(s.float())) // off by 1 at most
	for s.less(times(r, r)) {
		r--
	}
	for !s.less(times(r+1, r+1)) {
		r++
	}
	return r
}
