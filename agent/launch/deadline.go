package launch

import (
	"errors"
	"fmt"
	"os"
	"time"
)

var errTooLate = errors.New("the deadline has passed")

// deadline is an alarm on the wall clock. The kernel moves it along when the clock is set and
// fires it after a suspend that slept through it, so nothing has to look at the clock.
type deadline struct {
	timer *os.File
	fired chan struct{}
}

// newDeadline arms the alarm; zero leaves it silent until set is called.
func newDeadline(unixMS int64) (*deadline, error) {
	if unixMS != 0 && time.Now().UnixMilli() >= unixMS {
		return nil, errTooLate
	}
	fd, err := timerfdCreate()
	if err != nil {
		return nil, fmt.Errorf("deadline: %w", err)
	}
	timer, err := pollable(fd, "deadline")
	if err != nil {
		return nil, err
	}
	d := &deadline{timer: timer, fired: make(chan struct{}, 1)}
	if err := d.set(unixMS); err != nil {
		timer.Close()
		return nil, err
	}
	go d.wait()
	return d, nil
}

// set replaces the instant; an alarm that has not fired yet follows it.
func (d *deadline) set(unixMS int64) error {
	raw, err := d.timer.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = timerfdSet(int(fd), unixMS*int64(time.Millisecond))
	})
	if err = errors.Join(err, failed); err != nil {
		return fmt.Errorf("deadline: %w", err)
	}
	return nil
}

func (d *deadline) wait() {
	var expirations [8]byte
	for {
		if _, err := d.timer.Read(expirations[:]); err != nil {
			return
		}
		select {
		case d.fired <- struct{}{}:
		default: // told already
		}
	}
}
