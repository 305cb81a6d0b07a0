package serve

import (
	"fmt"
	"os"
	"strconv"
	"sync"
	"syscall"

	"pyro.dev/agent/files"
	"pyro.dev/agent/listen"
)

// Local serves the files of a directory of the host as a guest would, over an inherited listening socket, until that is
// shut down and its clients are gone. Nothing but files: no command can be run through it.
func Local(args []string) int {
	if len(args) != 3 {
		return usageError("files <listening-fd> <workspace> <area>")
	}
	fd, err := strconv.Atoi(args[0])
	if err != nil {
		return usageError(err.Error())
	}
	server := &Server{Version: "local", Files: &files.Store{Root: args[1], Area: args[2]}}
	var sessions sync.WaitGroup
	for {
		connection, _, err := syscall.Accept4(fd, syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			sessions.Wait()
			server.Files.Settle()
			return 0
		}
		sessions.Add(1)
		go func() {
			defer sessions.Done()
			server.Serve(listen.NewSocket(connection))
		}()
	}
}

func usageError(text string) int {
	fmt.Fprintln(os.Stderr, "pyro-agent: "+text)
	return 2
}
