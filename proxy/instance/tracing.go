package instance

import (
	"context"
	"fmt"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/pgmosaic/pgmosaic/proxy/config"
	"github.com/pgmosaic/pgmosaic/proxy/exec/observe"
)

// tracing sends traces to an OpenTelemetry collector, by OTLP over HTTP. What the collector is too slow for is dropped.
type tracing struct {
	provider *sdktrace.TracerProvider
	tracer   trace.Tracer
}

// newTracing is nil if no endpoint is configured.
func newTracing(ctx context.Context, cfg *config.Config, version string) (*tracing, error) {
	if cfg.Traces == "" {
		return nil, nil
	}
	exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(strings.TrimSuffix(cfg.Traces, "/")+"/v1/traces"), otlptracehttp.WithTimeout(5*time.Second))
	if err != nil {
		return nil, fmt.Errorf("otlp_endpoint: %w", err)
	}
	p := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter, sdktrace.WithBatchTimeout(time.Second)), sdktrace.WithSampler(sdktrace.AlwaysSample()),
		sdktrace.WithResource(resource.NewSchemaless(attribute.String("service.name", "pgmosaic"), attribute.String("service.version", version))))
	return &tracing{p, p.Tracer("pgmosaic")}, nil
}

// record makes a span of a statement, and one below it for each shard that took part. The attributes are those of
// OpenTelemetry's conventions for database clients.
func (t *tracing) record(x observe.Trace) {
	ctx := context.Background()
	if x.Parent != "" {
		ctx = propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{"traceparent": x.Parent})
	}
	verb, _, _ := strings.Cut(strings.TrimSpace(x.Statement), " ")
	ctx, span := t.tracer.Start(ctx, strings.ToUpper(verb)+" "+x.Database, trace.WithTimestamp(x.Start), trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(
		attribute.String("db.system.name", "postgresql"), attribute.String("db.namespace", x.Database), attribute.String("db.query.text", x.Statement),
		attribute.String("enduser.id", x.Role), attribute.Int("pgmosaic.shards", len(x.Parts))))
	if x.Code != "" {
		span.SetAttributes(attribute.String("db.response.status_code", x.Code), attribute.String("error.type", x.Code))
		span.SetStatus(codes.Error, "SQLSTATE "+x.Code)
	}
	for _, p := range x.Parts {
		_, part := t.tracer.Start(ctx, "shard "+p.Shard, trace.WithTimestamp(p.Start), trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(
			attribute.String("db.system.name", "postgresql"), attribute.String("db.namespace", x.Database), attribute.String("pgmosaic.shard", p.Shard), attribute.String("pgmosaic.node", p.Node)))
		part.End(trace.WithTimestamp(p.End))
	}
	span.End(trace.WithTimestamp(x.End))
}

// stop sends what is left, for a while.
func (t *tracing) stop() {
	if t == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	_ = t.provider.Shutdown(ctx) // a collector that is gone has lost them
}
