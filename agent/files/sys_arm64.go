package files

// Numbers that package syscall lacks.
const (
	sysRenameat2  = 276
	sysNewfstatat = 79
)
