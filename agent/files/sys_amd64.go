package files

// Numbers that package syscall lacks.
const (
	sysRenameat2  = 316
	sysNewfstatat = 262
)
