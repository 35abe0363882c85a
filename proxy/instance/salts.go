package instance

import (
	"bytes"
	"context"

	"github.com/pgmosaic/pgmosaic/proxy/access"
	"github.com/pgmosaic/pgmosaic/shardmap"
)

// saltKey is what the key is for that the salts of users are made with.
const saltKey = "scram salts"

// followSecret takes the map's secret into use: a process that began without a map may have got another's by now.
func (in *Instance) followSecret() {
	in.Catalog.OnChange(func(s *shardmap.Snapshot) {
		if bytes.Equal(s.Key(saltKey), in.Gate.Access().Key()) {
			return
		}
		in.background("salts", func(context.Context) error {
			in.reloading.Lock()
			defer in.reloading.Unlock()
			who, err := access.New(in.config.Load(), in.Catalog.Current().Key(saltKey))
			if err == nil {
				in.Gate.Use(who)
			}
			return err
		})
	})
}
