// What our dashboards may contain: Grafana's own types, with the options of each kind of panel that we use.
// @grafana/schema's Panel leaves options and custom fields open; Grafana gives the missing ones their defaults.
import type { AnnotationQuery, Dashboard, DataQuery, FieldConfig, FieldConfigSource, Panel, RowPanel, TableFieldOptions } from '@grafana/schema';
import type * as barchart from '@grafana/schema/dist/esm/raw/composable/barchart/panelcfg/x/BarChartPanelCfg_types.gen';
import type * as bargauge from '@grafana/schema/dist/esm/raw/composable/bargauge/panelcfg/x/BarGaugePanelCfg_types.gen';
import type * as stat from '@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen';
import type * as states from '@grafana/schema/dist/esm/raw/composable/statetimeline/panelcfg/x/StateTimelinePanelCfg_types.gen';
import type * as table from '@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen';
import type * as timeseries from '@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen';

// The package has no type for queries to Prometheus.
interface Query extends DataQuery {
  editorMode: 'code';
  expr: string;
  format?: 'table';
  instant: boolean;
  legendFormat: string;
  range: boolean;
}

interface Fields<Custom> extends Omit<FieldConfig, 'custom'> {
  custom?: Partial<Custom>;
}

interface Source<Custom> extends Omit<FieldConfigSource, 'defaults'> {
  defaults: Fields<Custom>;
}

interface Graph<Kind extends string, Options, Custom> extends Omit<Panel, 'type' | 'options' | 'fieldConfig' | 'targets'> {
  type: Kind;
  options: Partial<Options>;
  fieldConfig: Source<Custom>;
  targets: Query[];
}

type AnyPanel =
  | Graph<'barchart', barchart.Options, barchart.FieldConfig>
  | Graph<'bargauge', bargauge.Options, {}>
  | Graph<'stat', stat.Options, {}>
  | Graph<'state-timeline', states.Options, states.FieldConfig>
  | Graph<'table', table.Options, TableFieldOptions>
  | Graph<'timeseries', timeseries.Options, timeseries.FieldConfig>
  | RowPanel;

// The keys of Prometheus' data source are not in the package.
interface Annotation extends AnnotationQuery {
  expr?: string;
  step?: string;
  tagKeys?: string;
  textFormat?: string;
  titleFormat?: string;
  useValueForTime?: boolean;
}

export interface OurDashboard extends Omit<Dashboard, 'panels' | 'annotations'> {
  annotations: { list: Annotation[] };
  panels: AnyPanel[];
}
