package exec

import (
	"testing"

	"github.com/pgmosaic/pgmosaic/proxy/pool"
)

// What a server has said of how sessions begin is not kept where that was changed while it was asked: those that come later began by what is not so any more.
func TestAnOldWelcomeIsNotKept(t *testing.T) {
	w := welcomes{of: map[welcomeKey]*welcome{}, with: map[[2]string]string{}}
	key := welcomeKey{db: "shop", role: "app"}
	said := &welcome{login: pool.NoSettings, defaults: pool.NoSettings, with: "old"}
	since := w.cleared
	w.clear() // ALTER ROLE, meanwhile
	w.keep(key, said, since)
	if w.of[key] != nil || len(w.with) > 0 || w.bytes != 0 {
		t.Errorf("kept: %v", w)
	}
	w.keep(key, said, w.cleared)
	if w.of[key] != said || w.with[key.whose()] != "old" {
		t.Errorf("not kept: %v", w)
	}
}
