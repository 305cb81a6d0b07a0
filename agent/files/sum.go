package files

import "encoding/binary"

const (
	sumBase  = 65521
	sumStart = 1
	word     = 8
	// blockWords is how many words fit before a lane of 16 bits may overflow: 255 * 23 * 22 / 2 < 65536.
	blockWords = 23
	block      = blockWords * word
	evenBytes  = 0x00FF00FF00FF00FF
	evenLanes  = 0x0000FFFF0000FFFF
)

// addSum is Adler-32 (RFC 1950) of what sum stands for and then b. It takes eight bytes at a time with plain instructions:
// under software emulation it is several times as fast as hash/adler32 and hash/crc32, whose vector instructions QEMU
// carries out one by one.
func addSum(sum uint32, b []byte) uint32 {
	low, high := uint64(sum&0xFFFF), uint64(sum>>16)
	for len(b) >= block {
		bytes, weighted := sumBlock(b[:block])
		high = (high + block*low + weighted) % sumBase
		low = (low + bytes) % sumBase
		b = b[block:]
	}
	for _, c := range b {
		low += uint64(c)
		high += low
	}
	return uint32(high%sumBase)<<16 | uint32(low%sumBase)
}

// sumBlock gives the sum of a block's bytes, and the sum of each times its distance from the block's end.
func sumBlock(b []byte) (bytes, weighted uint64) {
	// Lanes of 16 bits: even and odd hold the sums of the bytes so far at each place in a word, evens and odds the sums
	// of those, so that a byte counts once for each word after its own.
	var even, odd, evens, odds uint64
	for ; len(b) >= word; b = b[word:] {
		w := binary.LittleEndian.Uint64(b)
		evens += even
		odds += odd
		even += w & evenBytes
		odd += w >> 8 & evenBytes
	}
	for place := range uint64(word / 2) {
		e, o := even>>(16*place)&0xFFFF, odd>>(16*place)&0xFFFF
		bytes += e + o
		weighted += (word-2*place)*e + (word-2*place-1)*o
	}
	evens = evens&evenLanes + evens>>16&evenLanes + odds&evenLanes + odds>>16&evenLanes
	return bytes, weighted + word*(evens&0xFFFFFFFF+evens>>32)
}
