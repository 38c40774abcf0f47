module kalamdb.io/xtask/pause

go 1.24
