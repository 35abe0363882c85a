//go:build !linux

package proxy

import "net"

// Inherited are the listening sockets of another process: there are none on this system.
type Inherited struct{}

// TakeOver asks the process that offers its sockets under an address; nil for none.
func TakeOver(string) *Inherited { return nil }

func (in *Inherited) take(string) (net.Listener, error) { return nil, nil }

// Done tells the other process that this one listens.
func (in *Inherited) Done() error { return nil }

// Close lets go of what was not taken.
func (in *Inherited) Close() {}

// Offer gives listeners to another process that asks.
type Offer struct{}

// NewOffer offers listeners of Listen, by address.
func NewOffer(string, map[string]net.Listener) (*Offer, error) { return nil, nil }

// Taken says whether another process listens in our place.
func (o *Offer) Taken() bool { return false }

// Close ends the offer.
func (o *Offer) Close() {}
