// Pyro-agent is the first process of every pyro guest, and on the host a few small helpers.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"path"
	"runtime/debug"
	"syscall"

	"pyro.dev/agent/account"
	"pyro.dev/agent/boot"
	"pyro.dev/agent/confine"
	"pyro.dev/agent/files"
	"pyro.dev/agent/gate"
	"pyro.dev/agent/job"
	"pyro.dev/agent/launch"
	"pyro.dev/agent/listen"
	"pyro.dev/agent/netns"
	"pyro.dev/agent/power"
	"pyro.dev/agent/reap"
	"pyro.dev/agent/serve"
	"pyro.dev/agent/tsc"
	"pyro.dev/agent/tunnel"
)

// version is set by the build: -ldflags "-X main.version=...".
var version = "dev"

const (
	vsockPort = 5005
	workspace = "/workspace"
	// stagingArea is where pushes wait: on the workspace's file system, out of its sight.
	stagingArea = "/.pyro/staging"
	// memoryGoal makes the collector work harder before we take what boot.limitJobs reserved.
	memoryGoal = 24 << 20
)

func main() {
	if path.Base(os.Args[0]) == confine.SealName {
		os.Exit(confine.Seal(os.Args[1:]))
	}
	// In a pid namespace of the host we may be the first process too, but with something to do.
	if os.Getpid() == 1 && os.Args[0] == "/init" {
		guest()
		return
	}
	os.Exit(command(os.Args[1:]))
}

func command(args []string) int {
	if len(args) > 0 {
		switch args[0] {
		case "confine":
			return confine.Main(args[1:])
		case "files":
			return serve.Local(args[1:])
		case "gate":
			return gate.Main()
		case "launch":
			return launch.Main(args[1:])
		case "netns":
			return netns.Main(args[1:])
		case "tsc":
			return tsc.Main()
		case "version":
			fmt.Println(version)
			return 0
		}
	}
	fmt.Fprintln(os.Stderr, "usage: pyro-agent launch <plan-fd> | confine <plan> | files <fd> <workspace> <area> | tsc | version")
	return 2
}

// guest is the life of PID 1. It must never return: the kernel would panic.
func guest() {
	var words boot.Words
	defer func() {
		if cause := recover(); cause != nil {
			fail(fmt.Errorf("panic: %v\n%s", cause, debug.Stack()), words)
		}
	}()
	// With a handler, which is not inherited by jobs, a stray `kill 1` does nothing.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT,
		syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGALRM, syscall.SIGPIPE, syscall.SIGABRT)
	debug.SetMemoryLimit(memoryGoal)

	machine, err := boot.Run()
	words = machine.Words
	if err != nil {
		fail(err, words)
	}
	jobs := job.NewTable(reap.New(), machine.Jobs, account.System)
	server := &serve.Server{
		Version:  version,
		BootMs:   machine.StageMs,
		Jobs:     jobs,
		Files:    &files.Store{Root: workspace, Area: stagingArea},
		Tunnels:  &tunnel.Table{},
		PowerOff: func() { jobs.KillAll(); power.Off(words.Restart) },
	}
	if err := open(server, words.Vsock); err != nil {
		fail(err, words)
	}
	select {}
}

// open serves every way into the guest, each on its own goroutine.
func open(server *serve.Server, vsock bool) error {
	if vsock {
		listener, err := listen.ListenVsock(vsockPort)
		if err != nil {
			return err
		}
		go func() {
			for {
				channel, err := listener.Accept()
				if err != nil {
					panic(err) // a listener does not fail; without it nobody reaches us
				}
				go server.Serve(channel)
			}
		}()
		return nil
	}
	return listen.EachSerial(server.Serve)
}

// fail says on the console why there is no guest, and ends the machine, so that nobody waits for it.
func fail(err error, words boot.Words) {
	fmt.Fprintf(os.Stderr, "\npyro-agent: boot failed: %v\n", err)
	power.Off(words.Restart)
}
