// Hostile stands in for the agent in tests: a guest that has been taken over and wants to crash, hang or fill the host.
// What it does stands in /behaviour of its initramfs. It is built for tests only and is part of no package.
package main

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"pyro.dev/agent/boot"
	"pyro.dev/agent/listen"
	"pyro.dev/agent/tunnel"
	"pyro.dev/agent/wire"
)

const (
	vsockPort  = 5005
	serialPort = 0x3f8 // the first serial port of a PC, also where the kernel was told that there is none
	chunk      = 64 << 10
)

// behaviours are what it does with a channel. Each returns when the channel is of no more use.
var behaviours = map[string]func(listen.Channel){
	"silent":    func(c listen.Channel) { _, _ = c.Read(make([]byte, chunk)); time.Sleep(time.Hour) },
	"garbage":   func(c listen.Channel) { endless(c, noise()) },
	"zeros":     func(c listen.Channel) { endless(c, make([]byte, chunk)) },
	"welcomes":  greeted(func(c listen.Channel, h wire.Hello) { endless(c, wire.AppendWelcome(nil, h)) }),
	"oversized": greeted(oversized),
	"truncated": greeted(truncated),
	"random":    greeted(func(c listen.Channel, h wire.Hello) { endless(c, noise()) }),
	"output":    greeted(func(c listen.Channel, h wire.Hello) { frames(c, h, wire.Stdout, append(make([]byte, 8), noise()...)) }),
	"answers":   greeted(func(c listen.Channel, h wire.Hello) { frames(c, h, wire.Response, []byte(`{"x":1}`)) }),
	"nesting": greeted(func(c listen.Channel, h wire.Hello) {
		frames(c, h, wire.Response, []byte(strings.Repeat("[", wire.MaxPayload)))
	}),
	"tunnel-flood":  tunnelled(tunnel.Data, 1, make([]byte, chunk)),
	"tunnel-large":  tunnelled(tunnel.Data, 1, make([]byte, wire.MaxPayload-tunnel.HeadSize)),
	"tunnel-nobody": tunnelled(tunnel.Data, 4711, []byte("x")),
	"console":       func(c listen.Channel) { _, _ = c.Read(make([]byte, chunk)); time.Sleep(time.Hour) },
}

func main() {
	name, err := os.ReadFile("/behaviour")
	if err != nil {
		stop(err)
	}
	machine, err := boot.Run()
	if err != nil {
		stop(err)
	}
	serve, known := behaviours[string(name)]
	if !known {
		stop(fmt.Errorf("no behaviour %q", name))
	}
	if string(name) == "console" {
		go floodConsole()
		go floodPort()
	}
	if !machine.Words.Vsock {
		if err := listen.EachSerial(func(c listen.Channel) { again(c, serve) }); err != nil {
			stop(err)
		}
		select {}
	}
	listener, err := listen.ListenVsock(vsockPort)
	for err == nil {
		var channel listen.Channel
		if channel, err = listener.Accept(); err == nil {
			go func() { serve(channel); channel.Close() }()
		}
	}
	stop(err)
}

// again serves one client of a serial port after the other.
func again(c listen.Channel, serve func(listen.Channel)) {
	for {
		serve(c)
		time.Sleep(10 * time.Millisecond)
	}
}

func stop(err error) {
	fmt.Fprintln(os.Stderr, "hostile:", err)
	_ = syscall.Reboot(syscall.LINUX_REBOOT_CMD_RESTART)
	select {}
}

func greeted(then func(listen.Channel, wire.Hello)) func(listen.Channel) {
	return func(c listen.Channel) {
		hello, err := wire.NewReader(c).ReadHello()
		if err != nil {
			return
		}
		hello.Generation = wire.Generation
		if _, err := c.Write(wire.AppendWelcome(nil, hello)); err == nil {
			then(c, hello)
		}
	}
}

// tunnelled agrees to a tunnel, and then sends one frame of it without end, as fast as it can.
func tunnelled(kind tunnel.Kind, stream uint32, body []byte) func(listen.Channel) {
	frame := append(binary.BigEndian.AppendUint32(nil, stream), byte(kind))
	frame = append(frame, body...)
	return greeted(func(c listen.Channel, h wire.Hello) {
		answer := wire.AppendFrame(nil, h.Session, wire.Response, []byte(`{"window":65536,"streams":128}`))
		if _, err := c.Write(answer); err == nil {
			frames(c, h, wire.TunnelOut, frame)
		}
	})
}

func oversized(c listen.Channel, h wire.Hello) {
	frame := wire.AppendFrame(nil, h.Session, wire.Response, []byte("{}"))
	copy(frame[8:12], []byte{0xff, 0xff, 0xff, 0xff})
	endless(c, frame)
}

func truncated(c listen.Channel, h wire.Hello) {
	frame := wire.AppendFrame(nil, h.Session, wire.Response, make([]byte, wire.MaxPayload))
	_, _ = c.Write(frame[:len(frame)-1])
	time.Sleep(time.Hour)
}

func frames(c listen.Channel, h wire.Hello, kind wire.Type, payload []byte) {
	endless(c, wire.AppendFrame(nil, h.Session, kind, payload))
}

func endless(c listen.Channel, data []byte) {
	for {
		if _, err := c.Write(data); err != nil {
			return
		}
	}
}

func noise() []byte {
	data := make([]byte, chunk)
	_, _ = rand.Read(data)
	return data
}

func floodConsole() {
	console, err := os.OpenFile("/dev/console", os.O_WRONLY, 0)
	for err == nil {
		_, err = console.Write(noise())
	}
}

// floodPort writes to the serial port's own register, whatever the kernel was told about it.
func floodPort() {
	port, err := os.OpenFile("/dev/port", os.O_WRONLY, 0)
	for err == nil {
		_, err = port.WriteAt([]byte{'!'}, serialPort)
	}
}
