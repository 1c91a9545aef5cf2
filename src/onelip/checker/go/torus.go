package main

import "fmt"

// byTorus: the map is a part of a circular convolution on a torus, whose norm is the largest over frequencies.
//
// With zeros around, the torus is so large that no tap outside the image comes back into it,
// and that all places are different ones. With circular padding it is the image.
//
// An image on a torus is stride x stride images on a coarser one; for them the map is a
// convolution of stride 1, and a frequency's matrix has a block of columns for each.
func (c *convolution) byTorus(what string) (bool, string) {
	var coarse [2]int
	for a := range coarse {
		size, stride, places := c.from[a+1], c.stride[a], c.to[a+1]
		if c.circular {
			coarse[a] = size / stride
			demand(size%stride == 0 && places <= coarse[a], "%s: more places than a torus has, or a stride that does not divide it", what)
		} else {
			coarse[a] = (size + c.pad[a] + stride - 1) / stride
			if coarse[a] < places {
				coarse[a] = places
			}
		}
	}
	spend(coarse[0]+coarse[1], 1<<10)
	rootsY, rootsX := roots(coarse[0]), roots(coarse[1])
	demand(coarse[0]*coarse[1] <= 1<<24, "%s: a torus that is too large", what)
	// Frequencies k and -k have conjugate matrices, for the kernel is real.
	chosen := [][2]int{}
	for y := 0; y < coarse[0]; y++ {
		for x := 0; x < coarse[1]; x++ {
			v, u := (coarse[0]-y)%coarse[0], (coarse[1]-x)%coarse[1]
			if v > y || v == y && u >= x {
				chosen = append(chosen, [2]int{y, x})
			}
		}
	}
	shown := make([]bool, len(chosen))
	parallel(len(chosen), func(n int) {
		if n > 0 && workers == 1 && !shown[n-1] {
			return
		}
		shown[n] = c.atFrequency(rootsY, rootsX, chosen[n], func(a matrix, off upper) bool { return a.below(c.norm, off) })
	})
	for _, ok := range shown {
		if !ok {
			return false, ""
		}
	}
	return true, fmt.Sprintf("%d frequencies", len(chosen))
}

// atFrequency asks show of the real form [[X, -Y], [Y, X]] of the matrix X + iY of each group, with what it is off by.
func (c *convolution) atFrequency(rootsY, rootsX []turn, frequency [2]int, show func(matrix, upper) bool) bool {
	outs, ins := c.wide[0]/c.groups, c.wide[1]
	k, m := c.wide[2], c.wide[3]
	phases := c.stride[0] * c.stride[1]
	spend(8, outs*c.groups, ins, k*m+phases)
	turns, blocks := make([]turn, k*m), make([]int, k*m)
	for y := 0; y < k; y++ {
		for x := 0; x < m; x++ {
			shiftY, phaseY := split(y*c.gap[0]-c.pad[0], c.stride[0])
			shiftX, phaseX := split(x*c.gap[1]-c.pad[1], c.stride[1])
			zy := rootsY[modulo(shiftY, len(rootsY))*frequency[0]%len(rootsY)]
			zx := rootsX[modulo(shiftX, len(rootsX))*frequency[1]%len(rootsX)]
			turns[y*m+x] = zy.after(zx)
			blocks[y*m+x] = phaseY*c.stride[1] + phaseX
		}
	}
	demand(phases <= largest && ins*phases <= largest, "a stride that is too large")
	cols := ins * phases
	demand(4*outs*cols <= largest, "a frequency's matrix with too many entries")
	// Per tap the turn is off by 2^offTurn times the tap's matrix; the sum over taps by the root of their number times the kernel, and so is the kernel's own rounding.
	taps := rootOfWhole(k * m)
	length := lengthOf(c.weight.m, c.weight.e)
	off := taps.times(c.weight.off).plus(taps.times(length).scaled(offTurn))
	re, im := make([]wide, outs*cols), make([]wide, outs*cols)
	for g := 0; g < c.groups; g++ {
		kernel := c.weight.m[g*c.perGroup() : (g+1)*c.perGroup()]
		for i := range re {
			re[i], im[i] = wide{}, wide{}
		}
		for o := 0; o < outs; o++ {
			for i := 0; i < ins; i++ {
				for t, z := range turns {
					w, p := kernel[(o*ins+i)*k*m+t], o*cols+blocks[t]*ins+i
					re[p] = re[p].plus(times(w, z.re))
					im[p] = im[p].plus(times(w, z.im))
				}
			}
		}
		both := settled(append(append([]wide{}, re...), im...), c.weight.e-precise)
		a := matrix{2 * outs, 2 * cols, make([]int64, 4*outs*cols), both.e}
		for o := 0; o < outs; o++ {
			for i := 0; i < cols; i++ {
				x, y := both.m[o*cols+i], both.m[outs*cols+o*cols+i]
				a.m[o*2*cols+i], a.m[o*2*cols+cols+i] = x, -y
				a.m[(outs+o)*2*cols+i], a.m[(outs+o)*2*cols+cols+i] = y, x
			}
		}
		if !show(a, off.plus(both.off)) {
			return false
		}
	}
	return true
}

func modulo(a, n int) int { return ((a % n) + n) % n }

// split is the quotient, rounded down, and the rest.
func split(a, n int) (int, int) {
	r := modulo(a, n)
	return (a - r) / n, r
}
