package main

import (
	"fmt"
	"math/big"
	"math/bits"
)

// fourier is a matrix for each frequency of images, and a bias or nil.
type fourier struct {
	proved
	from   [3]int
	half   int // the number of frequencies across
	outs   int
	weight grid // (height, half, out, in, 2)
	bias   *tensor
}

const longestSide = 1 << 10

func (b *bundle) readFourier(v any, input []int, what string) (*fourier, string) {
	f := fields(v, what, "map", "norm", "weight", "bias")
	demand(b.level == nil, "%s: a map that level float does not know", what)
	t, from := b.floats(f["weight"], what), image(input, what)
	demand(from[1] <= longestSide && from[2] <= longestSide, "%s: an image with too long a side", what)
	half := from[2]/2 + 1
	fits := len(t.shape) == 5 && t.shape[0] == from[1] && t.shape[1] == half && t.shape[3] == from[0] && t.shape[4] == 2
	demand(fits && t.shape[2] > 0, "%s: the weight does not fit its input", what)
	keep(t.length(), 8)
	r := &fourier{from: from, half: half, outs: t.shape[2], weight: t.onGrid(), bias: b.bias(f["bias"], t.shape[2], what)}
	r.proved = proved{claim(f["norm"], what), []int{r.outs, from[1], from[2]}}
	demand(r.below(), "%s: its norm is not shown to be at most what is claimed", what)
	return r, fmt.Sprintf("%d frequencies", from[1]*half)
}

// below shows the norm of the matrix of each frequency.
//
// Frequencies are orthogonal. Those that the weights leave out have the conjugate matrices of others; where a frequency
// across is its own opposite, what is real of the result has the mean of a matrix and a conjugate one.
func (f *fourier) below() bool {
	count, rows, cols := f.from[1]*f.half, f.outs, f.from[0]
	demand(4*rows*cols <= largest, "a frequency's matrix with too many entries")
	spend(count, 1<<13)
	spend(8, count, rows, cols)
	shown := make([]bool, count)
	parallel(count, func(n int) {
		if n > 0 && workers == 1 && !shown[n-1] {
			return
		}
		shown[n] = complexMatrix(f.matrix(n), rows, cols, f.weight.e).below(f.norm, f.weight.off)
	})
	for _, ok := range shown {
		if !ok {
			return false
		}
	}
	return true
}

// matrix is that of a frequency, row by row: real and imaginary parts.
func (f *fourier) matrix(frequency int) []int64 {
	size := 2 * f.outs * f.from[0]
	return f.weight.m[frequency*size : (frequency+1)*size]
}

// complexMatrix is [[X, -Y], [Y, X]] for X + iY, which has its norm.
func complexMatrix(parts []int64, rows, cols, e int) matrix {
	a := matrix{2 * rows, 2 * cols, make([]int64, 4*rows*cols), e}
	for o := 0; o < rows; o++ {
		for i := 0; i < cols; i++ {
			x, y := parts[2*(o*cols+i)], parts[2*(o*cols+i)+1]
			a.m[o*2*cols+i], a.m[o*2*cols+cols+i] = x, -y
			a.m[(rows+o)*2*cols+i], a.m[(rows+o)*2*cols+cols+i] = y, x
		}
	}
	return a
}

// apply sums along width and height, multiplies by the matrices, and sums along height and width: all as whole numbers,
// of which complex ones are pairs.
func (f *fourier) apply(x grid) grid {
	ins, height, width, half := f.from[0], f.from[1], f.from[2], f.half
	spend(height+width, 1<<13)
	// A product with signs takes more than one without.
	spend(ins+f.outs, height, width, 3*half)
	spend(ins+f.outs, half, 2*height, 3*height)
	spend(height, half, f.outs, ins, 6)
	down, across := roots(height), roots(width)

	// Each step has its own norm and error: the matrices of roots are off by less than 2^offRoot in each entry.
	y := grid{x.m, x.e, nothing()}
	y = transform{rows: half, cols: width, at: func(l, b int) turn { return across[(width-l)*b%width] }, size: width,
		to: func(v, l int) int { return (v/height*half+l)*height + v%height }}.ofReal(y)
	y = transform{rows: height, cols: height, at: func(k, a int) turn { return down[(height-k)*a%height] }, size: height,
		to: func(v, k int) int { return (k*half+v%half)*ins + v/half }}.of(y)
	y = f.multiplied(y)
	y = transform{rows: height, cols: height, at: func(a, k int) turn { return down[a*k%height] }, size: height,
		to: func(v, a int) int { return (v/half*height+a)*half + v%half }}.of(y)
	y = transform{rows: width, cols: half, at: func(b, l int) turn {
		if l == 0 || 2*l == width {
			return across[b*l%width]
		}
		z := across[b*l%width]
		return turn{2 * z.re, 2 * z.im}
	}, size: 2 * width, to: func(v, b int) int { return v*width + b }}.toReal(y)
	y = shared(y, height*width)
	y.off = f.carried(x, y.off)
	return biased(y, f.bias)
}

// multiplied is the vector of each frequency times its matrix, with the frequencies of a channel next to each other.
func (f *fourier) multiplied(x grid) grid {
	ins, height := f.from[0], f.from[1]
	sums := make([]wide, 2*f.outs*f.half*height)
	straight, crossed := make([]int64, 2*ins), make([]int64, 2*ins)
	for n := 0; n < height*f.half; n++ {
		for i := 0; i < ins; i++ {
			re, im := x.m[2*(n*ins+i)], x.m[2*(n*ins+i)+1]
			straight[2*i], straight[2*i+1] = re, -im
			crossed[2*i], crossed[2*i+1] = im, re
		}
		a, k, l := f.matrix(n), n/f.half, n%f.half
		for o := 0; o < f.outs; o++ {
			row, to := a[2*o*ins:2*(o+1)*ins], 2*((o*f.half+l)*height+k)
			sums[to], sums[to+1] = product(row, straight), product(row, crossed)
		}
	}
	y := settled(sums, x.e+f.weight.e)
	y.off = y.off.plus(above(f.norm).times(x.off)).plus(f.weight.off.times(lengthOf(x.m, x.e)))
	return y
}

// transform is a matrix of roots of unity, or of twice these, that many vectors are multiplied by; entry r of vector v goes to
// place to(v, r). The root of size is at least the norm of what is done to each.
type transform struct {
	rows, cols int
	at         func(row, col int) turn
	size       int
	to         func(vector, row int) int
}

// ofReal is of real vectors.
func (s transform) ofReal(x grid) grid {
	row := func(r int) (re, im []int64) {
		re, im = make([]int64, s.cols), make([]int64, s.cols)
		for c := range re {
			z := s.at(r, c)
			re[c], im[c] = z.re, z.im
		}
		return re, im
	}
	return s.summed(x, s.cols, row, 2)
}

// of is of complex vectors.
func (s transform) of(x grid) grid { return s.summed(x, 2*s.cols, s.row, 2) }

// toReal is the real parts of that.
func (s transform) toReal(x grid) grid {
	row := func(r int) (re, im []int64) {
		re, _ = s.row(r)
		return re, nil
	}
	return s.summed(x, 2*s.cols, row, 1)
}

// row is what real and imaginary part of an entry are the products with.
func (s transform) row(r int) (re, im []int64) {
	re, im = make([]int64, 2*s.cols), make([]int64, 2*s.cols)
	for c := 0; c < s.cols; c++ {
		z := s.at(r, c)
		re[2*c], re[2*c+1] = z.re, -z.im
		im[2*c], im[2*c+1] = z.im, z.re
	}
	return re, im
}

// summed takes vectors of so many numbers to entries of one or two. Below 2^11 numbers of at most 2^51 meet, so nothing wraps.
func (s transform) summed(x grid, each int, row func(int) (re, im []int64), parts int) grid {
	vectors := len(x.m) / each
	sums := make([]wide, vectors*s.rows*parts)
	for r := 0; r < s.rows; r++ {
		re, im := row(r)
		for v := 0; v < vectors; v++ {
			z, to := x.m[v*each:(v+1)*each], parts*s.to(v, r)
			sums[to] = product(z, re)
			if parts == 2 {
				sums[to+1] = product(z, im)
			}
		}
	}
	y := settled(sums, x.e-precise)
	wrong := rootOfWhole(s.rows * s.cols).scaled(offRoot + 1) // roots may stand twice
	y.off = y.off.plus(rootOfWhole(s.size).times(x.off)).plus(wrong.times(lengthOf(x.m, x.e)))
	return y
}

// shared is x / n for n up to 2^20.
func shared(x grid, n int) grid {
	e := precise - 1 + bits.Len(uint(n)) // 2^e / n is between 2^49 and 2^50
	m := new(big.Int).Lsh(big.NewInt(1), uint(e))
	factor := grid{[]int64{m.Quo(m, big.NewInt(int64(n))).Int64()}, -e, above(power(-e))}
	y := scaledBy(x, factor, make([]int32, len(x.m)))
	y.off = y.off.plus(x.off.over(n))
	return y
}

func (f *fourier) executed(*level, execution) execution {
	refuse("a map that level float does not know")
	return execution{}
}
