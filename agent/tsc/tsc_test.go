package tsc

import (
	"testing"
	"time"
)

func TestTwoMeasurementsAgree(t *testing.T) {
	if !supported {
		t.Skip("no time stamp counter on this architecture")
	}
	first, err := measure()
	if err != nil {
		t.Fatal(err)
	}
	second, err := measure()
	if err != nil {
		t.Fatal(err)
	}
	if max(first, second)-min(first, second) > first/500 {
		t.Fatalf("%d and %d kHz differ by more than 0.2 %%", first, second)
	}
}

func TestFrequencyRefusesWhatItCannotTrust(t *testing.T) {
	now := time.Now()
	start := reading{ticks: 1_000_000, slack: 100, at: now}
	cases := []struct {
		name string
		end  reading
		khz  uint64
		ok   bool
	}{
		{"a clean window", reading{51_000_000, 100, now.Add(20 * time.Millisecond)}, 2_500_000, true},
		{"a bracket spoilt by preemption", reading{51_000_000, 40_000, now.Add(20 * time.Millisecond)}, 0, false},
		{"a counter that goes back", reading{999_999, 100, now.Add(20 * time.Millisecond)}, 0, false},
		{"a clock that stands still", reading{51_000_000, 100, now}, 0, false},
		{"an impossible rate", reading{1_000_000_000_000, 100, now.Add(20 * time.Millisecond)}, 0, false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			khz, ok := frequency(start, c.end)
			if ok != c.ok || (ok && khz != c.khz) {
				t.Fatalf("got %d, %v", khz, ok)
			}
		})
	}
}
