package main

import "sync/atomic"

const (
	usual      = 1 << 42 // what any bundle may ask for: some minutes
	perByte    = 1 << 16 // and what it may ask for with each byte of tensors
	perProduct = 8       // what a product of two whole numbers counts

	usualBytes   = 1 << 32 // what maps may keep in memory, however often they share a tensor
	bytesPerByte = 1 << 6
)

// left is how much work may still be done: a small file can ask for days.
var left int64 = 1 << 62

// free is how many bytes maps may still keep.
var free int64 = 1 << 62

// allow starts to count for a bundle.
func allow(times, bytes int) {
	atomic.StoreInt64(&left, int64(times)*(usual+int64(bytes)*perByte))
	atomic.StoreInt64(&free, int64(times)*(usualBytes+int64(bytes)*bytesPerByte))
}

// keep refuses a bundle whose maps ask for too much memory.
func keep(entries, bytesEach int) {
	demand(atomic.AddInt64(&free, -int64(entries)*int64(bytesEach)) >= 0, "more memory than is allowed; -work 9 allows 9 times as much")
}

// spend refuses a bundle that asks for too much. Factors are numbers of entries, at most 2^26 each.
func spend(factors ...int) {
	work := int64(perProduct)
	for _, n := range factors {
		if n > 0 {
			demand(work <= 1<<60/int64(n), tooMuch)
			work *= int64(n)
		}
	}
	demand(atomic.AddInt64(&left, -work) >= 0, tooMuch)
}

const tooMuch = "more work than is allowed; -work 9 allows 9 times as much"
